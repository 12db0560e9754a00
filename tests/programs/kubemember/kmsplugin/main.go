// A KMS v2 plugin on Kubernetes' own server of that API (k8s.io/kms/pkg/service), to see what is sent as a plugin does.
// It ends when its standard input does.
package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"io"
	"log"
	"os"
	"time"

	"k8s.io/kms/pkg/service"
)

const note = "kms.test.example"

type plugin struct{ aead cipher.AEAD }

func (p plugin) Status(context.Context) (*service.StatusResponse, error) {
	return &service.StatusResponse{Version: "v2", Healthz: "ok", KeyID: "go-1"}, nil
}

func (p plugin) Encrypt(_ context.Context, uid string, data []byte) (*service.EncryptResponse, error) {
	nonce := make([]byte, p.aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil || uid == "" {
		return nil, errors.New("no nonce or no uid")
	}
	sealed := p.aead.Seal(nonce, nonce, data, []byte("go-1"))
	return &service.EncryptResponse{Ciphertext: sealed, KeyID: "go-1", Annotations: map[string][]byte{note: {0, 255}}}, nil
}

func (p plugin) Decrypt(_ context.Context, uid string, asked *service.DecryptRequest) ([]byte, error) {
	size := p.aead.NonceSize()
	if uid == "" || asked.KeyID != "go-1" || string(asked.Annotations[note]) != "\x00\xff" || len(asked.Ciphertext) < size {
		return nil, errors.New("this was not encrypted here")
	}
	return p.aead.Open(nil, asked.Ciphertext[:size], asked.Ciphertext[size:], []byte(asked.KeyID))
}

func main() {
	block, err := aes.NewCipher(make([]byte, 32)) // what it keeps is nothing but a test's
	if err != nil {
		log.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		log.Fatal(err)
	}
	server := service.NewGRPCService(os.Args[1], 5*time.Second, plugin{aead})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		server.Close()
	}()
	if err := server.ListenAndServe(); err != nil {
		log.Fatal(err)
	}
}
