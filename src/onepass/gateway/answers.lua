-- What a member may not answer: run for 1xx, 3xx and 401 only (onepass/gateway/httpfilters.py), as every call of a script costs
-- each request a coroutine. The gatekeeper has left the name of the member, which it knew, so that it stands in JSON as
-- it is.

local byte, find, format = string.byte, string.find, string.format

local STATUS = '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"%s","reason":"BadGateway","code":502}'

-- Where a kube-apiserver sends a client that asks for a schema by an old hash: to the same schema by its hash of today.
-- One repetition after the other, none of which can give to the next: a member must not make this take long.
local SCHEMA = "^/openapi/v3/[%w_.-][%w_./-]*%?hash=%x+$"

-- A redirect would send the user somewhere with a method and a path that nobody has allowed: the one that clients need
-- leads back through the gateway, which judges it like any request. A protocol that nobody asked for would leave the
-- client and Envoy with different notions of where the next answer begins. A 401 is about the credential of the gateway: the
-- client would take it for its own, and log in again for nothing. What a member's proxy leads to asks its own users.
function envoy_on_response(h)
  local headers = h:headers()
  local code = headers:get(":status")
  local switched = code == "101" and not h:requestHeaders():get("upgrade")
  local refused = code == "401"
  if not switched and not refused and (byte(code) ~= 51 or code == "304") then return end
  local known = h:streamInfo():dynamicMetadata():get("onepass")
  if not known or not known.cluster then return end
  local about = refused and known.request and known.request.objectRef
  if about and about.subresource == "proxy" then return end
  local to = code == "301" and headers:get("location")
  if to and find(to, SCHEMA) and not find(to, "..", 1, true) and not find(to, "//", 1, true) then
    headers:replace("location", "/apis/cluster.karpor.io/v1beta1/clusters/" .. known.cluster .. "/proxy" .. to)
    return
  end
  headers:replace(":status", "502")
  headers:remove("location")
  headers:remove("www-authenticate")
  headers:remove("upgrade")
  headers:remove("content-length")
  headers:remove("content-encoding")
  headers:replace("content-type", "application/json")
  if h:requestHeaders():get(":method") == "HEAD" then return end -- its answer has no body
  local what = switched and "answered with a protocol that nobody asked for"
    or refused and "refuses the credential of the gateway; an administrator must give it a new one"
    or "answered with a redirect, which is not followed"
  h:body(true):setBytes(format(STATUS, format('cluster \\"%s\\" %s', known.cluster, what)))
end
