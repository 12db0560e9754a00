-- Before the tokens are verified: a bearer token among the subprotocols of a WebSocket becomes the Authorization header,
-- as a browser cannot set that one (k8s.io/apiserver/pkg/authentication/request/websocket). What is not read here stays
-- where it is, and the gatekeeper refuses it.

local find, gmatch, gsub, lower, rep, sub = string.find, string.gmatch, string.gsub, string.lower, string.rep, string.sub
local concat = table.concat

local BEARER_PROTOCOL = "base64url.bearer.authorization.k8s.io."
local STATUS = '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"%s","reason":"Unauthorized","code":401}'

local function refuse(h, message)
  h:respond({ [":status"] = "401", ["content-type"] = "application/json", ["cache-control"] = "no-cache, private" },
    string.format(STATUS, message))
end

-- The token, or nil for what is not base64url (RFC 4648, 5, without padding) of visible ASCII.
local function decoded(h, text)
  if text == "" or find(text, "[^%w_-]") then return nil end
  local standard = gsub(gsub(text, "-", "+"), "_", "/")
  local token = h:base64Decode(standard .. rep("=", -#standard % 4))
  if not token or token == "" or find(token, "[^\33-\126]") then return nil end
  return token
end

function envoy_on_request(h)
  local headers = h:headers()
  local protocols = headers:get("sec-websocket-protocol")
  if not protocols or lower(headers:get("upgrade") or "") ~= "websocket" then return end
  local kept, token = {}, nil
  for protocol in gmatch(protocols, "[^,%s]+") do
    if sub(protocol, 1, #BEARER_PROTOCOL) ~= BEARER_PROTOCOL then
      kept[#kept + 1] = protocol
    elseif token then
      return refuse(h, "there is more than one bearer token in Sec-WebSocket-Protocol")
    else
      token = decoded(h, sub(protocol, #BEARER_PROTOCOL + 1))
      if not token then return refuse(h, "the bearer token in Sec-WebSocket-Protocol is not base64url") end
    end
  end
  if not token then return end
  if #kept == 0 then return refuse(h, "beside a bearer token, Sec-WebSocket-Protocol needs the protocol to speak") end
  local given = headers:get("authorization")
  if given and given ~= "Bearer " .. token then
    return refuse(h, "the bearer tokens in Authorization and Sec-WebSocket-Protocol differ")
  end
  headers:replace("authorization", "Bearer " .. token)
  headers:replace("sec-websocket-protocol", concat(kept, ", "))
end
