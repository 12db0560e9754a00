-- The gatekeeper: who asks, what for, may they, and what the next hop sees of it (docs/architecture.md).
--
-- onepass.gateway.tables puts the policy tables, requestinfo.lua and rules.lua before this file. Envoy gives header names
-- in lower case. Every refusal is a Status (meta/v1), as kube-apiserver's.

local policy, known, requestinfo, rules, audit = policy, known, onepass.requestinfo, onepass.rules, onepass.audit
local front, is_name, lower, sub = onepass.front, requestinfo.is_name, string.lower, string.sub
local byte, find, format, gmatch, gsub = string.byte, string.find, string.format, string.gmatch, string.gsub
local concat, ipairs, max, pairs, pcall, select = table.concat, ipairs, math.max, pairs, pcall, select
local time, tostring, type = os.time, tostring, type

local BEARER_PROTOCOL = "base64url.bearer.authorization.k8s.io."
local MAX_TOKEN = 16 * 1024
local ADMINISTRATORS = "onepass:administrators"

-- Answers ------------------------------------------------------------------------------------------------------------

local REASONS = {
  [400] = "BadRequest", [401] = "Unauthorized", [403] = "Forbidden", [404] = "NotFound", [500] = "InternalError",
}
local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\" }

local function escape(c)
  return ESCAPES[c] or format("\\u%04x", byte(c))
end

local function json(text)
  return '"' .. gsub(text, '[%c"\\]', escape) .. '"'
end

local function status(code, message, details)
  return format('{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":%s,"reason":"%s"%s,"code":%d}',
    json(message), REASONS[code], details or "", code)
end

local function details(a)
  if not a or not a.is_resource then return "" end
  local name = a.name ~= "" and '"name":' .. json(a.name) .. "," or ""
  local group = a.group ~= "" and '"group":' .. json(a.group) .. "," or ""
  return ',"details":{' .. name .. group .. '"kind":' .. json(a.resource) .. "}"
end

-- Headers ------------------------------------------------------------------------------------------------------------

local OURS = { [101] = true, [102] = true, [111] = true, [114] = true } -- x-e, x-f, x-o, x-r

-- What stands in the headers, in one walk: each crossing into Envoy costs more than the Lua around it. `drop` names
-- the headers that nobody behind the gateway may see as the client sent them.
local function survey(headers)
  local seen, drop, n = {}, {}, 0
  for name, value in pairs(headers) do
    local first = byte(name)
    if first == 58 then -- a pseudo-header
      if name == ":path" then seen.path = value elseif name == ":method" then seen.method = value end
    elseif first == 120 then -- x
      if OURS[byte(name, 3)] and (sub(name, 1, 9) == "x-remote-" or sub(name, 1, 8) == "x-envoy-"
        or sub(name, 1, 10) == "x-onepass-" or name == "x-forwarded-client-cert") then
        n = n + 1
        drop[n] = name
      end
    elseif first == 105 then -- i
      if sub(name, 1, 12) == "impersonate-" then
        local as = seen.as or {}
        seen.as = as
        as[#as + 1] = name
        as[#as + 1] = value
      end
    elseif name == "authorization" or name == "proxy-authorization" or name == "cookie" then
      if name == "authorization" then seen.twice, seen.authorization = seen.authorization ~= nil, #value end
      n = n + 1
      drop[n] = name
    elseif name == "upgrade" then
      seen.upgrade = true
    elseif name == "sec-websocket-protocol" then
      seen.protocols = (seen.protocols and seen.protocols .. "," or "") .. value
    end
  end
  return seen, drop
end

-- Whom the client wants to be, of its Impersonate-* headers (k8s.io/apiserver/pkg/endpoints/filters/impersonation);
-- nil when it asks for nobody. Then why that cannot be read, and the headers that mean nothing.
local function impersonation(as)
  local imp, unknown, asked = { user = "", groups = {}, uid = "", extra = {} }, {}, false
  for i = 1, #as, 2 do
    local name, value = as[i], as[i + 1]
    if not requestinfo.is_utf8(value) then return nil, name .. " is not UTF-8" end
    if name == "impersonate-user" or name == "impersonate-uid" then
      local field = sub(name, 13)
      if imp[field] ~= "" then return nil, name .. " is given more than once" end
      imp[field] = value
      if value == "" then unknown[#unknown + 1] = name else asked = true end
    elseif name == "impersonate-group" then
      imp.groups[#imp.groups + 1] = value
      asked = true
    elseif sub(name, 1, 18) == "impersonate-extra-" then
      local key = sub(name, 19)
      if not find(gsub(key, "%%%x%x", ""), "%", 1, true) then key = requestinfo.unescape(key) end
      imp.extra[key] = imp.extra[key] or {}
      imp.extra[key][#imp.extra[key] + 1] = value
      asked = true
    else
      unknown[#unknown + 1] = name
    end
  end
  return asked and imp or nil, nil, unknown
end

-- The WebSocket subprotocols without a bearer token, and whether there was one.
local function without_token(protocols)
  local kept, found = {}, false
  for protocol in gmatch(protocols, "[^,%s]+") do
    if sub(protocol, 1, #BEARER_PROTOCOL) == BEARER_PROTOCOL then
      found = true
    else
      kept[#kept + 1] = protocol
    end
  end
  return concat(kept, ", "), found
end

-- Identity -----------------------------------------------------------------------------------------------------------

local function is_reserved(name)
  return find(name, "^system:") ~= nil or (find(name, "^onepass:") ~= nil and name ~= ADMINISTRATORS)
end

-- A name that only the gateway itself gives.
local function is_ours(name)
  return is_reserved(name) or name == ADMINISTRATORS
end

-- What a certificate says, by its digest: the same bytes say the same, and reading them is what costs.
local certificates, remembered = {}, 0

local function read_certificate(tls)
  local issuer = tls:sha256PeerCertificateIssuerDigest() -- of the chain that was verified, not of what was sent
  local own = known.own[issuer]
  local subject = tls:parsedSubjectPeerCertificate()
  local user, groups = subject and subject:commonName(), {}
  if not is_name(user) then return { why = "the client certificate names no user" } end
  if is_ours(user) then return { why = "the client certificate names a reserved user" } end
  for _, group in ipairs(subject:organizationName()) do
    if not is_name(group) then return { why = "the client certificate names a group that is no name" } end
    if is_reserved(group) or not own and group == ADMINISTRATORS then return { why = "the client certificate names a reserved group" } end
    groups[#groups + 1] = group
  end
  groups[#groups + 1] = "system:authenticated"
  local serial = gsub(lower(tls:serialNumberPeerCertificate()), "^0+", "")
  return {
    id = { user = user, groups = groups, serial = serial, issuer = not own and issuer or nil },
    serial = serial, issuer = issuer, expires = tls:expirationPeerCertificate(),
  }
end

-- Serial numbers are an authority's own: two may give the same one.
local function is_taken_back(certificate)
  if known.own[certificate.issuer] then return policy.revoked[certificate.serial] end
  return (known.others[certificate.issuer] or known.elsewhere)[certificate.serial]
end

local function by_certificate(tls, now)
  local digest = tls:sha256PeerCertificateDigest()
  local certificate = certificates[digest]
  if not certificate then
    if remembered >= 20000 then certificates, remembered = {}, 0 end
    certificate, remembered = read_certificate(tls), remembered + 1
    certificates[digest] = certificate
  end
  if certificate.why then return nil, certificate.why end
  if is_taken_back(certificate) then return nil, "the client certificate has been revoked" end
  if certificate.expires <= now then return nil, "the client certificate has expired" end
  return certificate.id
end

-- A token of an issuer that the operator trusts: its claims name the user and the groups.
local function by_issuer(claims, how)
  for _, pair in ipairs(how.required) do
    if claims[pair[1]] ~= pair[2] then return nil, format('the token is not for this gateway: claim "%s"', pair[1]) end
  end
  local name, groups, listed = claims[how.username], {}, how.groups ~= "" and claims[how.groups] or nil
  if type(name) ~= "string" or name == "" then return nil, format('the token has no claim "%s" to name a user', how.username) end
  if how.username == "email" and claims.email_verified ~= nil and claims.email_verified ~= true then
    return nil, "the token's email address is not verified"
  end
  local user = how.username_prefix .. name
  if not is_name(user) then return nil, "the token names no user" end
  if is_ours(user) then return nil, "the token names a reserved user" end
  if type(listed) == "string" then listed = { listed } end
  if listed ~= nil and type(listed) ~= "table" then return nil, format('claim "%s" of the token is no list', how.groups) end
  for _, group in ipairs(listed or {}) do
    if type(group) ~= "string" or not is_name(how.groups_prefix .. group) then
      return nil, "the token names a group that is no name"
    end
    group = how.groups_prefix .. group
    if is_ours(group) then return nil, "the token names a reserved group" end
    groups[#groups + 1] = group
  end
  groups[#groups + 1] = "system:authenticated"
  return { user = user, groups = groups }
end

-- A token is taken when jwt_authn has verified it and its service account is still the one that it was made for.
local function by_token(claims)
  if type(claims.aud) == "table" and #claims.aud > 1 then
    return nil, "the token is for others too, who could have kept it"
  end
  local bound = claims["kubernetes.io"]
  local account = type(bound) == "table" and bound.serviceaccount
  local namespace = type(bound) == "table" and bound.namespace
  if type(account) ~= "table" or type(account.name) ~= "string" or type(namespace) ~= "string" then
    return nil, "the token is not a service account's"
  end
  local user = "system:serviceaccount:" .. namespace .. ":" .. account.name
  local uid = policy.accounts[user]
  if user ~= claims.sub or not uid or uid ~= account.uid then
    return nil, "the service account of the token is gone"
  end
  local groups = { "system:serviceaccounts", "system:serviceaccounts:" .. namespace, "system:authenticated" }
  return { user = user, groups = groups, uid = uid }
end

local ANONYMOUS = { user = "system:anonymous", groups = { "system:unauthenticated" } }

-- Who asks; or nil and why the credential does not hold.
local function identify(info, seen, token_in_protocol, now)
  local tls = info:downstreamSslConnection()
  if tls then
    if tls:peerCertificateValidated() then return by_certificate(tls, now) end
    if tls:peerCertificatePresented() then return nil, "the client certificate is not one of this gateway's" end
  end
  local verified = info:dynamicMetadata():get("envoy.filters.http.jwt_authn")
  local claims = verified and verified.jwt_payload
  if claims then
    if seen.twice then return nil, "there is more than one Authorization header" end
    if (seen.authorization or 0) > MAX_TOKEN then return nil, "the bearer token is too long" end
    local how = known.issuers[claims.iss]
    if how then return by_issuer(claims, how) end
    return by_token(claims)
  end
  if seen.authorization then return nil, "the bearer token is not valid here" end
  if token_in_protocol then return nil, "a bearer token in Sec-WebSocket-Protocol is taken for WebSockets only; send it in Authorization" end
  return ANONYMOUS
end
local own = { identify = identify, decide = rules.decide }

-- Ways on ------------------------------------------------------------------------------------------------------------

local function to_apiserver(headers, id, streams)
  headers:replace("x-onepass-route", streams and "apiserver-stream" or "apiserver")
  headers:replace("x-remote-user", id.user)
  for _, group in ipairs(id.groups) do headers:add("x-remote-group", group) end
  if id.uid then headers:add("x-remote-uid", id.uid) end
  if front then headers:add("x-onepass-judged", "host") end
end

-- What goes on for as long as both sides like (k8s.io/kubernetes/pkg/controlplane/apiserver, LongRunningFunc); everything
-- else a kube-apiserver ends after a minute. A log that nobody follows ends by itself.
local function is_stream(a, seen, query)
  return seen.upgrade or a.verb == "watch" or a.verb == "proxy" or a.subresource == "proxy"
    or a.subresource == "log" and requestinfo.is_true(requestinfo.parameter(query, "follow"))
end

local function to_member(h, headers, seen, id, target, streams, path, query, imp, as_user, ends)
  headers:replace(":path", target.prefix .. path .. (query and "?" .. query or ""))
  headers:replace(":authority", target.authority)
  headers:replace("x-onepass-member", target.cluster)
  headers:replace("x-onepass-route", streams and "stream" or "member")
  if as_user and not imp then
    headers:replace("impersonate-user", id.user)
    for _, group in ipairs(id.groups) do
      if sub(group, 1, 7) ~= "system:" then headers:add("impersonate-group", group) end
    end
  end
  if seen.upgrade then headers:replace("connection", "Upgrade") end -- and nothing else that a client may have listed
  if ends then
    headers:replace("x-envoy-upstream-stream-duration-ms", format("%.0f", max(1, ends * 1000 - h:timestamp())))
  end
end

-- What the control plane is told of a stream (onepass.companion): all that it takes to judge the stream again.
local function announce(metadata, seen, id, cluster, inner, query, as_user)
  metadata:set("onepass", "stream", {
    method = seen.method, cluster = cluster, path = inner, query = audit.printable(query or ""),
    upgrade = seen.upgrade or false, as = seen.as, serial = id.serial, issuer = id.issuer, as_user = as_user or false,
    front = front and front.passes or nil,
  })
end

-- nil to go on; or a refusal: code, message, and the attributes of what is refused. `told` gets what the audit log says.
local function admit(h, told)
  local headers, info, now = h:headers(), h:streamInfo(), time()
  local metadata = info:dynamicMetadata()
  local seen, drop = survey(headers)
  if front then seen.said = front.hear(headers) end
  for _, name in ipairs(drop) do headers:remove(name) end
  local token_in_protocol = false
  if seen.protocols and find(seen.protocols, BEARER_PROTOCOL, 1, true) then
    local kept
    kept, token_in_protocol = without_token(seen.protocols)
    headers:remove("sec-websocket-protocol")
    if kept ~= "" then headers:add("sec-websocket-protocol", kept) end
  end

  local raw, query = seen.path or "", nil
  local mark = find(raw, "?", 1, true)
  if mark then raw, query = sub(raw, 1, mark - 1), sub(raw, mark + 1) end
  told.requestURI, told.verb = audit.request_uri(raw, query), lower(seen.method)
  local stripped
  query, stripped = requestinfo.without_access_token(query)
  if stripped then headers:replace(":path", query and raw .. "?" .. query or raw) end
  local decoded, wire = requestinfo.decode(raw)
  if not decoded then return 400, wire end

  local id, why = (front or own).identify(info, seen, token_in_protocol, now)
  if not id then return 401, why end
  told.user = audit.user(id)
  if front and not front.serves(seen.method, decoded) then return 404, front.NOT_HERE end

  local cluster, inner = requestinfo.member(decoded)
  local a, malformed = requestinfo.attributes(seen.method, inner or decoded, query or "", seen.upgrade)
  local imp, unreadable, unknown
  if seen.as then
    imp, unreadable, unknown = impersonation(seen.as)
    if unreadable then return 400, unreadable end
    told.impersonatedUser = imp and audit.impersonated(imp)
  end
  if a then told.verb, told.objectRef = a.verb, audit.object(a) end
  if not cluster then
    if a and a.verb == "watch" then announce(metadata, seen, id, nil, decoded, query) end
    return to_apiserver(headers, id, a and a.verb == "watch")
  end
  told.cluster = cluster
  if id.user == ANONYMOUS.user then return 401, "a request to a member cluster needs a credential" end
  if not a then return 400, malformed end
  for _, name in ipairs(unknown or {}) do headers:remove(name) end

  local code, message, origin, as_user, ends, here =
    (front or own).decide(id, cluster, seen.method, a, seen.upgrade, now, imp)
  if code ~= 200 then return code, message, code == 403 and a or nil end
  told.decision = "allow"
  told.reason, told.pass = audit.allowed(origin)
  if here then return to_apiserver(headers, id) end
  metadata:set("onepass", "cluster", cluster)
  local streams = is_stream(a, seen, query or "")
  if streams then
    told.stream = true
    announce(metadata, seen, id, cluster, inner, query, as_user)
  end
  if wire ~= decoded then inner = select(2, requestinfo.member(wire)) end
  to_member(h, headers, seen, id, policy.targets[cluster], streams, inner, query, imp, as_user, ends)
end

-- Envoy lets a request pass whose script fails: so no failure leaves this function.
function envoy_on_request(h)
  local told = {}
  local ran, code, message, a = pcall(admit, h, told)
  if not ran then
    h:logErr("gatekeeper: " .. tostring(code))
    code, message, a = 500, "Internal error occurred: the gatekeeper failed", nil
  end
  if code then told.decision, told.reason = "forbid", audit.reason(message) end
  h:streamInfo():dynamicMetadata():set("onepass", "request", told)
  if not code then return end
  h:respond({ [":status"] = tostring(code), ["content-type"] = "application/json", ["cache-control"] = "no-cache, private" },
    status(code, message, details(a)))
end
