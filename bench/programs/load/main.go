// Command load sends a fixed number of GETs over a fixed number of connections, with a client certificate, and prints
// one line of JSON: how many were answered with 200 and how many not, and how long they took.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"io"
	"log"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

type result struct {
	Answered int     `json:"answered"`
	Failed   int     `json:"failed"`
	Why      string  `json:"why"` // of one that failed
	Seconds  float64 `json:"seconds"`
	P50      float64 `json:"p50"` // microseconds, as P99
	P99      float64 `json:"p99"`
}

type plan struct {
	url      string
	requests int64
	rate     float64
	start    time.Time
	next     atomic.Int64
	mutex    sync.Mutex
	took     []time.Duration
	failed   int
	why      string
}

func main() {
	url := flag.String("url", "", "what to get")
	ca := flag.String("ca", "", "PEM file of the server's authority")
	proof := flag.String("proof", "", "PEM file of the client certificate and key")
	overHTTP2 := flag.Bool("http2", false, "HTTP/2 instead of HTTP/1.1")
	requests := flag.Int64("requests", 10000, "how many requests in all")
	connections := flag.Int("connections", 16, "how many connections")
	streams := flag.Int("streams", 1, "how many requests at once on a connection; more than 1 needs -http2")
	rate := flag.Float64("rate", 0, "requests a second over all connections; 0: as fast as they are answered")
	limit := flag.Duration("limit", 2*time.Minute, "give up after this long")
	flag.Parse()
	log.SetFlags(0)
	if *streams > 1 && !*overHTTP2 {
		log.Fatal("-streams above 1 needs -http2")
	}
	text, err := os.ReadFile(*ca)
	check(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	pair, err := tls.LoadX509KeyPair(*proof, *proof)
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), *limit)
	defer cancel()
	p := &plan{url: *url, requests: *requests, rate: *rate}
	clients := make([]*http.Client, *connections)
	for i := range clients {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(!*overHTTP2)
		protocols.SetHTTP2(*overHTTP2)
		clients[i] = &http.Client{Transport: &http.Transport{
			Protocols:       protocols,
			MaxConnsPerHost: 1,
			TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}},
		}}
		if err := get(ctx, clients[i], *url); err != nil { // connects, outside of what is measured
			log.Fatal(err)
		}
	}
	p.start = time.Now()
	var workers sync.WaitGroup
	for _, client := range clients {
		for range *streams {
			workers.Go(func() { p.work(ctx, client) })
		}
	}
	workers.Wait()
	check(json.NewEncoder(os.Stdout).Encode(p.result()))
}

// work takes requests off the plan until there are none left. A request that starts late, because every worker was
// busy, counts from when it was due.
func (p *plan) work(ctx context.Context, client *http.Client) {
	took := []time.Duration{}
	failed, why := 0, ""
	for {
		number := p.next.Add(1) - 1
		if number >= p.requests || ctx.Err() != nil {
			break
		}
		began := time.Now()
		if p.rate > 0 {
			due := p.start.Add(time.Duration(float64(number) / p.rate * float64(time.Second)))
			if early := due.Sub(began); early > 0 {
				time.Sleep(early)
				began = time.Now()
			} else {
				began = due
			}
		}
		if err := get(ctx, client, p.url); err != nil {
			failed++
			why = err.Error()
			continue
		}
		took = append(took, time.Since(began))
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.took = append(p.took, took...)
	p.failed += failed
	if why != "" {
		p.why = why
	}
}

func (p *plan) result() result {
	slices.Sort(p.took)
	r := result{Answered: len(p.took), Failed: p.failed, Why: p.why, Seconds: time.Since(p.start).Seconds()}
	if n := len(p.took); n > 0 {
		r.P50 = float64(p.took[n/2].Nanoseconds()) / 1000
		r.P99 = float64(p.took[n*99/100].Nanoseconds()) / 1000
	}
	return r
}

type refused string

func (r refused) Error() string { return string(r) }

func get(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(response.Body, 500))
		return refused(response.Status + ": " + string(body))
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
