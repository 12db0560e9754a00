-- What the audit log says of a request (audit.k8s.io/v1 Event): the parts that only the gatekeeper knows, as dynamic
-- metadata that onepass/gateway/auditlog.py names in the record. Everything here is bounded, and holds no secret.

local byte, find, format, gmatch, gsub = string.byte, string.find, string.format, string.gmatch, string.gsub
local match, sub, concat = string.match, string.sub, table.concat

local LONGEST_URI, LONGEST_REASON, MOST_PARAMETERS = 4096, 512, 64

-- Parameters that say what is asked for. Others may carry what is nobody's business: a token, a command with a password.
local SHOWN = {}
for name in gmatch([[allowWatchBookmarks container continue dryRun fieldManager fieldSelector fieldValidation follow
  force gracePeriodSeconds labelSelector limit limitBytes orphanDependents ports pretty previous propagationPolicy
  resourceVersion resourceVersionMatch sendInitialEvents sinceSeconds sinceTime stderr stdin stdout stream tailLines
  timeout timeoutSeconds timestamps tty verbose watch]], "%a+") do
  SHOWN[name] = true
end

local function percent(c)
  return format("%%%02X", byte(c))
end

-- Text as it may stand in a request line, whatever the client sent.
local function printable(text)
  return find(text, "[^\33-\126]") and gsub(text, "[^\33-\126]", percent) or text
end

-- The request line's path with the parameters that are shown.
local function request_uri(path, query)
  if not query or query == "" then return sub(printable(path), 1, LONGEST_URI) end
  local kept, n = {}, 0
  for parameter in gmatch(query, "[^&]+") do
    if SHOWN[match(parameter, "^(%a+)=") or match(parameter, "^%a+$")] then
      n = n + 1
      kept[n] = parameter
      if n == MOST_PARAMETERS then break end
    end
  end
  return sub(printable(path .. (n > 0 and "?" .. concat(kept, "&") or "")), 1, LONGEST_URI)
end

local function given(text)
  return text ~= "" and text or nil
end

-- An ObjectReference, or nil for a path that is no resource.
local function object(a)
  if not a.is_resource then return nil end
  return {
    resource = a.resource, subresource = given(a.subresource), namespace = given(a.namespace), name = given(a.name),
    apiGroup = given(a.group), apiVersion = a.version,
  }
end

-- A UserInfo of who asks.
local function user(id)
  local told = { username = id.user, uid = id.uid, groups = id.groups[1] and id.groups or nil }
  if id.serial then told.extra = { ["authentication.kubernetes.io/credential-id"] = { "X509SERIAL=" .. id.serial } } end
  return told
end

-- A UserInfo of whom the client asked to be.
local function impersonated(imp)
  return { username = given(imp.user), uid = given(imp.uid), groups = imp.groups[1] and imp.groups or nil }
end

-- How the decision came about: by a pass, or by a binding, whose name has a slash.
local function allowed(origin)
  if find(origin, "/", 1, true) then return "RBAC: allowed by " .. origin, nil end
  return 'allowed by Pass "' .. origin .. '"', origin
end

local function reason(message)
  return sub(message, 1, LONGEST_REASON)
end

onepass.audit = {
  request_uri = request_uri, object = object, user = user, impersonated = impersonated, allowed = allowed,
  printable = printable, reason = reason,
}
