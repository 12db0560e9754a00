-- The way in of a host cluster's aggregator: who asks is what its front proxy says (k8s.io/apiserver
-- pkg/authentication/request/headerrequest), and what it lets through to `clusters/proxy` the host's RBAC has allowed.
--
-- The global `front` is set for the listener of the aggregator only (onepass.gateway.tables); without it there is nothing
-- here. Its own client certificate is what makes the front proxy believed, on every request.

local front, policy, requestinfo, rules = front, policy, onepass.requestinfo, onepass.rules
local format, sub, is_name = string.format, string.sub, onepass.requestinfo.is_name
local ipairs, next, pairs = ipairs, next, pairs

local HOST = "the host cluster's clusters/proxy" -- how the audit log calls the rule
local READ = 'the host cluster judges a WebSocket as "get", so here it needs a pass; kubectl falls back to SPDY, '
  .. 'which is judged as "create"'

-- What the front proxy says of who asks, taken off the request whatever it is called.
local function hear(headers)
  local said, drop = { users = {}, groups = {}, uids = {} }, {}
  for name, value in pairs(headers) do
    for sort, list in pairs(said) do
      if front[sort][name] then list[#list + 1], drop[name] = value, true end
    end
    for _, prefix in ipairs(front.extras) do
      if sub(name, 1, #prefix) == prefix then drop[name] = true end
    end
  end
  for name in pairs(drop) do headers:remove(name) end
  return said
end

-- nil, or why whoever has connected is not the front proxy.
local function is_stranger(tls, now)
  if not tls or not tls:peerCertificateValidated() then return "only the front proxy of the host cluster may ask here" end
  if tls:expirationPeerCertificate() <= now then return "the certificate of the front proxy has expired" end
  if front.withdrawn[tls:sha256PeerCertificateIssuerDigest()] then
    return "the authority of the front proxy's certificate is no longer trusted"
  end
  local subject = tls:parsedSubjectPeerCertificate()
  if next(front.allowed) and not front.allowed[subject and subject:commonName() or ""] then
    return "the client certificate is not the front proxy's: its name is not among the allowed ones"
  end
end

-- As the gatekeeper's own `identify`: who asks, or nil and why not.
local function identify(info, seen, _, now)
  local stranger = is_stranger(info:downstreamSslConnection(), now)
  if stranger then return nil, stranger end
  local said = seen.said
  local user, uid = said.users[1], said.uids[1]
  if #said.users > 1 or #said.uids > 1 then return nil, "the front proxy names more than one user" end
  if not is_name(user) then return nil, "the front proxy names no user" end
  if sub(user, 1, 8) == "onepass:" then return nil, "the front proxy names a reserved user" end
  if uid and uid ~= "" and not is_name(uid) then return nil, "the front proxy names a uid that is no name" end
  for _, group in ipairs(said.groups) do
    if not is_name(group) then return nil, "the front proxy names a group that is no name" end
    if sub(group, 1, 8) == "onepass:" then return nil, "the front proxy names a reserved group" end
  end
  return { user = user, groups = said.groups, uid = uid ~= "" and uid or nil }
end

-- Whether a path is one that an aggregator has judged: the group that it hands on, and the documents that it merges.
local GROUP = "/apis/cluster.karpor.io"
local function serves(method, path)
  if path == GROUP or sub(path, 1, #GROUP + 1) == GROUP .. "/" then return true end
  local document = path == "/apis" or path == "/apis/" or path == "/version" or path == "/openapi/v2"
    or path == "/openapi/v3" or sub(path, 1, #GROUP + 12) == "/openapi/v3" .. GROUP .. "/"
  return document and (method == "GET" or method == "HEAD")
end

-- As rules.decide, after the host has decided. Its RBAC is about the outer request: for what it has judged as a read and
-- is more, the gateway's own rules are asked, as they are for everything when passes narrow.
local function decide(id, cluster, method, a, upgrade, now, imp)
  local target = policy.targets[cluster]
  if not target then return 404, format('clusters.cluster.karpor.io "%s" not found', cluster) end
  local judged_less = upgrade and requestinfo.verb_of(method, false) ~= "create"
  if front.passes ~= "narrow" and not judged_less then
    if target.as_user and sub(id.user, 1, 7) == "system:" then return 403, rules.never(id, cluster, a) end
    return 200, "", HOST, target.as_user
  end
  local code, message, origin, as_user, ends, here = rules.decide(id, cluster, method, a, upgrade, now, imp)
  if code == 403 and front.passes ~= "narrow" and judged_less then message = message .. "; " .. READ end
  return code, message, origin, as_user, ends, here
end

if front then
  onepass.front = { hear = hear, identify = identify, serves = serves, decide = decide, passes = front.passes,
    NOT_HERE = "the aggregator of a host cluster asks for nothing here",
  }
end
