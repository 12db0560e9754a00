-- The twin of onepass/access/requestinfo.py, whose docstrings say why: from a request line to the attributes of rules.

local byte, find, format, gmatch, gsub = string.byte, string.find, string.format, string.gmatch, string.gsub
local lower, match, sub, char = string.lower, string.match, string.sub, string.char
local concat, ipairs, tonumber = table.concat, ipairs, tonumber

local MEMBER_PATHS = { "/apis/cluster.karpor.io/v1beta1/clusters/", "/apis/kusionstack.io/Cluster/" }
local MAX_PARAMETERS = 1000

local UTF8 = {
  "[\194-\223][\128-\191]", "\224[\160-\191][\128-\191]", "[\225-\236\238\239][\128-\191][\128-\191]",
  "\237[\128-\159][\128-\191]", "\240[\144-\191][\128-\191][\128-\191]",
  "[\241-\243][\128-\191][\128-\191][\128-\191]", "\244[\128-\143][\128-\191][\128-\191]",
}

local function is_utf8(text)
  if not find(text, "[\128-\255]") then return true end
  -- Something stays in the place of each, or what stood around it could join to another.
  for _, sequence in ipairs(UTF8) do text = gsub(text, sequence, ".") end
  return not find(text, "[\128-\255]")
end

-- What a header carries unchanged, and nobody can take for another name.
local function is_name(text)
  return text ~= nil and text ~= "" and not find(text, "%c") and not find(text, "^%s") and not find(text, "%s$")
    and is_utf8(text)
end

local function from_hex(hex)
  return char(tonumber(hex, 16))
end

local function unescape(text)
  return (gsub(text, "%%(%x%x)", from_hex))
end

local function has_bad_escape(text)
  return find(gsub(text, "%%%x%x", ""), "%", 1, true) ~= nil
end

-- The decoded path, and the one form of it that goes on the wire; or nil and why not.
local function decode(path)
  local decoded, wire = path, path
  if byte(path) ~= 47 then return nil, "the path of a request begins with a slash" end
  if not find(path, "^[%w%-._~!$&'()*+,=:@/]*$") then
    if find(path, "[^\33-\126]") or find(path, "[#?]") then
      return nil, "the path has a character that must be percent-encoded"
    end
    if has_bad_escape(path) then return nil, "the path has a percent sign that begins no percent-encoded byte" end
    if find(path, "%%2[Ff]") then return nil, "the path has a percent-encoded slash" end
    decoded = unescape(path)
    if not is_utf8(decoded) then return nil, "the path is not UTF-8" end
    if find(decoded, "[%c;\\]") then
      return nil, "the path has a semicolon, a backslash or a control character"
    end
    wire = gsub(decoded, "[^%w%-._~!$&'()*+,=:@/]", function(c) return format("%%%02X", byte(c)) end)
  end
  if find(decoded, "//", 1, true)
    or (find(decoded, "/.", 1, true) and (find(decoded, "/%.%.?/") or find(decoded, "/%.%.?$"))) then
    return nil, 'the path has an empty segment or one that is "." or ".."'
  end
  return decoded, wire
end

-- The member's name and the path there, of a decoded path or its wire form; nil for the gateway's own API.
local function member(path)
  if byte(path, 7) ~= 99 and byte(path, 7) ~= 107 then return nil end -- "/apis/c", "/apis/k"
  for _, prefix in ipairs(MEMBER_PATHS) do
    if sub(path, 1, #prefix) == prefix then
      local name, rest = match(path, "^([^/]+)/proxy(.*)$", #prefix + 1)
      if not name or (rest ~= "" and byte(rest) ~= 47) then return nil end
      return name, rest == "" and "/" or rest
    end
  end
end

local function unescape_selector(value)
  local plain = gsub(value, "\\[\\,=]", "")
  if find(plain, "[\\,=]") then return nil end
  return (gsub(value, "\\([\\,=])", "%1"))
end

-- The name that `metadata.name=NAME` in a field selector requires, or "": that of the first such term in their order.
-- Found without sorting: Lua's sort takes a time that grows with the square of what whoever knows it sends.
local function selected_name(selector)
  local from, at, first, name = 1, 1, nil, nil
  while at <= #selector + 1 do
    local c = byte(selector, at)
    if c == nil or c == 44 then
      if at > from then
        local term = sub(selector, from, at - 1)
        local equals = find(term, "=", 1, true)
        if not equals then return "" end
        local negated = equals > 1 and byte(term, equals - 1) == 33
        local doubled = not negated and byte(term, equals + 1) == 61
        local value = unescape_selector(sub(term, equals + (doubled and 2 or 1)))
        if not value then return "" end
        if not negated and sub(term, 1, equals - 1) == "metadata.name" and (not first or term < first) then
          first, name = term, value
        end
      end
      from = at + 1
    end
    at = at + (c == 92 and at < #selector and 2 or 1)
  end
  if not name or name == "." or name == ".." or find(name, "[/%%]") then return "" end
  return name
end

-- The first value of `wanted` in a query, or nil. A key without "=" has the value "".
local function parameter(query, wanted)
  for pair in gmatch(query, "[^&]+") do
    local key, value = match(gsub(pair, "%+", " "), "^([^=]*)=?(.*)$")
    if unescape(key) == wanted then return unescape(value) end
  end
end

-- The query without access_token: a token in it (RFC 6750, 2.3) is taken nowhere here, and is nobody else's to read.
local function without_access_token(query)
  if not query or not (find(query, "token", 1, true) or find(query, "%", 1, true)) then return query, false end
  local kept, found = {}, false
  for pair in gmatch(query, "[^&]+") do
    local name = unescape(match(pair, "^[^=]*"))
    if name == "access_token" then found = true else kept[#kept + 1] = pair end
  end
  if not found then return query, false end
  return #kept > 0 and concat(kept, "&") or nil, true
end

-- A boolean parameter as k8s.io/apimachinery reads it: everything but "0" and "false" is true, "" too.
local function is_true(value)
  if value == nil then return false end
  local folded = lower(gsub(value, "\197\191", "s"))
  return folded ~= "0" and folded ~= "false"
end

-- `list` or `watch`, and the one name that the field selector admits; or nil and why not.
local function listing(query)
  if query == "" then return "list", "" end
  if find(query, "[^\33-\126]") or find(query, "[;#]") or has_bad_escape(query) then
    return nil, "the query has a semicolon or a character that must be percent-encoded"
  end
  local _, ands = gsub(query, "&", "")
  if ands >= MAX_PARAMETERS then return nil, "the query has more than " .. MAX_PARAMETERS .. " parameters" end
  local selector = parameter(query, "fieldSelector") or ""
  if not is_utf8(selector) then return nil, "the field selector is not UTF-8" end
  return is_true(parameter(query, "watch")) and "watch" or "list", selected_name(selector)
end

local VERBS = { POST = "create", GET = "get", HEAD = "get", PUT = "update", PATCH = "patch", DELETE = "delete" }
local PATH_VERBS = { proxy = true, watch = true }
local NAMESPACE_SUBRESOURCES = { status = true, finalize = true }
local SESSIONS = { exec = true, attach = true, portforward = true }
local BEYOND = { api = 1, apis = 2 }

local function verb_of(method, upgrade)
  return upgrade and "create" or VERBS[method] or ""
end

-- The attributes of a request with a decoded path; or nil and why not.
local function attributes(method, path, query, upgrade)
  local parts, n = {}, 0
  for part in gmatch(path, "[^/]+") do
    n = n + 1
    parts[n] = part
    if n == 10 then break end -- nothing behind the subresource is read
  end
  local beyond = BEYOND[parts[1]]
  if not beyond or n < beyond + 2 then
    return { verb = upgrade and "create" or lower(method), path = path, is_resource = false, namespace = "" }
  end
  local at = beyond + 2
  local verb = VERBS[method] or ""
  if PATH_VERBS[parts[at]] then
    if n < at + 1 then return nil, "the path names no resource" end
    verb, at = parts[at], at + 1
  end
  local namespace = ""
  if parts[at] == "namespaces" and n > at then
    namespace = parts[at + 1]
    if n > at + 1 and not NAMESPACE_SUBRESOURCES[parts[at + 2]] then at = at + 2 end
  end
  local subresource = n > at + 1 and verb ~= "proxy" and parts[at + 2] or ""
  local name = parts[at + 1] or ""
  if upgrade or SESSIONS[subresource] then
    verb = "create"
  elseif verb == "get" and name == "" then
    verb, name = listing(query)
    if not verb then return nil, name end
  elseif verb == "delete" and name == "" then
    verb = "deletecollection"
  end
  local resource = parts[at]
  return {
    verb = verb, path = path, is_resource = true, group = beyond == 2 and parts[2] or "", version = parts[beyond + 1],
    resource = resource, subresource = subresource, namespace = namespace, name = name,
    qualified = subresource == "" and resource or resource .. "/" .. subresource,
    any = subresource ~= "" and "*/" .. subresource or nil,
  }
end

onepass.requestinfo = {
  attributes = attributes, decode = decode, is_true = is_true, is_name = is_name, is_utf8 = is_utf8, member = member,
  parameter = parameter, unescape = unescape, verb_of = verb_of, without_access_token = without_access_token,
}
