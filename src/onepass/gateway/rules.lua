-- The twin of onepass/access/{rules,refusals}.py, whose docstrings say why: may they.
--
-- Reads the global `policy`, which onepass.gateway.tables writes. Envoy runs each worker's copy in one thread and
-- nothing here waits, so that what one call keeps in module-level variables is safe.

local policy = policy
local byte, find, format, gsub, match, sub = string.byte, string.find, string.format, string.gsub, string.match, string.sub
local huge, ipairs, next, pairs, sort = math.huge, ipairs, next, pairs, table.sort

local CLUSTERS = "cluster.karpor.io"

local function set(...)
  local members = {}
  for _, name in ipairs({ ... }) do members[name] = true end
  return members
end

local function begins(text, prefix)
  return sub(text, 1, #prefix) == prefix
end

-- Sentences --------------------------------------------------------------------------------------------

local NEVER_GROUPS = 'groups that begin with "system:" are never impersonated'
local NEVER_ANONYMOUS = "the anonymous user is never impersonated"
local NEVER_USERS = 'the member would have to see the user, and users that begin with "system:" are never impersonated'
local NO_USER = "impersonating a group, a uid or an extra field needs a user to impersonate as well"

local function is_plain(text)
  return find(text, "^[%w._:/@+%-]+$") ~= nil
end

local function advice(user, cluster, a)
  local inside = a.namespace ~= "" and " --namespace " .. a.namespace or ""
  if not a.is_resource or find(user, "^system:")
    or not (is_plain(user) and is_plain(cluster) and is_plain(a.verb) and is_plain(a.qualified))
    or not (inside == "" or is_plain(a.namespace)) then
    return "ask an administrator for a pass"
  end
  return format(
    "ask an administrator for a pass: onepass pass issue %s --cluster %s --verbs %s --resource %s%s -o FILE",
    user, cluster, a.verb, a.qualified, inside)
end

local function denied(user, cluster, a, why)
  why = why or advice(user, cluster, a)
  if not a.is_resource then
    return format('forbidden: User "%s" cannot %s path "%s" of cluster "%s": %s', user, a.verb, a.path, cluster, why)
  end
  local what = a.group ~= "" and a.resource .. "." .. a.group or a.resource
  local named = a.name ~= "" and format('%s "%s"', what, a.name) or what
  local where = a.namespace ~= "" and format('in the namespace "%s"', a.namespace) or "at the cluster scope"
  return format('%s is forbidden: User "%s" cannot %s resource "%s" in API group "%s" %s of cluster "%s": %s',
    named, user, a.verb, a.qualified, a.group, where, cluster, why)
end

-- Rules. In the tables a set that is nil holds everything. ------------------------------------------------

local DISCOVERY = set("/api", "/apis", "/healthz", "/livez", "/openapi", "/readyz", "/version", "/version/")
local SELF_REVIEWS = {
  ["authentication.k8s.io"] = set("selfsubjectreviews"),
  ["authorization.k8s.io"] = set("selfsubjectaccessreviews", "selfsubjectrulesreviews"),
}

local function covers(patterns, path)
  for _, pattern in ipairs(patterns) do
    if pattern == "*" or pattern == path then return true end
    if byte(pattern, -1) == 42 and begins(path, (gsub(pattern, "%*+$", ""))) then return true end
  end
  return false
end

local function matches(rule, a)
  local verbs, namespaces = rule.verbs, rule.namespaces
  if verbs and not verbs[a.verb] or namespaces and not namespaces[a.namespace] then return false end
  if not a.is_resource then return rule.paths ~= nil and covers(rule.paths, a.path) end
  local groups, resources, names = rule.groups, rule.resources, rule.names
  return not (groups and not groups[a.group])
    and not (resources and not resources[a.qualified] and not (a.any and resources[a.any]))
    and not (names and not names[a.name])
end

local function any_matches(rules, a)
  for i = 1, #rules do
    if matches(rules[i], a) then return true end
  end
  return false
end

-- Whether a rule gives any verb at all on the member.
local function concerns_proxy(rule, cluster)
  local verbs, groups, resources, names = rule.verbs, rule.groups, rule.resources, rule.names
  return not (verbs and next(verbs) == nil)
    and not (groups and not groups[CLUSTERS])
    and not (resources and not resources["clusters/proxy"] and not resources["*/proxy"])
    and not (names and not names[cluster])
end

local function any_concerns(rules, cluster)
  for i = 1, #rules do
    if concerns_proxy(rules[i], cluster) then return true end
  end
  return false
end

-- The best way found so far to carry what is asked: Gateway before Impersonate, the later end, the lower index.
local found, best_as_user, best_end, best_index, best_origin

local function offer(origin, as_user, ends, index)
  ends = ends or huge
  if found and (as_user and not best_as_user
    or as_user == best_as_user and (ends < best_end or ends == best_end and index > best_index)) then
    return
  end
  found, best_as_user, best_end, best_index, best_origin = true, as_user, ends, index, origin
end

local PROXY = {
  is_resource = true, group = CLUSTERS, resource = "clusters", subresource = "proxy", qualified = "clusters/proxy",
  any = "*/proxy", namespace = "",
}

-- Bindings come before grants, so their indices are shifted below them. `a` nil asks for the proxy of `cluster`.
local function offer_bindings(list, a, cluster, free, as_user)
  if not list then return end
  for i = 1, #list do
    local binding = policy.bindings[list[i]]
    if any_matches(binding.rules, a or PROXY) or free and any_concerns(binding.rules, cluster) then
      offer(binding.origin, as_user, nil, list[i] - 1e9)
    end
  end
end

local function offer_grants(list, a, cluster, now, free, as_user)
  if not list then return end
  local grants = policy.grants
  for i = 1, #list do
    local grant = grants[list[i]]
    local clusters, begins_at, ends_at = grant.clusters, grant.not_before, grant.not_after
    if (not clusters or clusters[cluster]) and (not begins_at or begins_at <= now) and (not ends_at or now < ends_at)
      and (free or any_matches(grant.rules, a)) then
      offer(grant.origin, as_user or grant.as_user, ends_at, list[i])
    end
  end
end

-- Offers every way of someone to carry a request to a member, in the order of the policy.
local function offer_ways(id, target, cluster, carrier, a, now, free)
  found = false
  PROXY.verb, PROXY.name = carrier, cluster
  offer_bindings(policy.bound.users[id.user], nil, cluster, free, target.as_user)
  offer_grants(policy.granted.users[id.user], a, cluster, now, free, target.as_user)
  for _, group in ipairs(id.groups) do
    offer_bindings(policy.bound.groups[group], nil, cluster, free, target.as_user)
    offer_grants(policy.granted.groups[group], a, cluster, now, free, target.as_user)
  end
end

local function may_know(id, cluster)
  local listed = { verb = "list", is_resource = true, group = CLUSTERS, qualified = "clusters", namespace = "", name = "" }
  local got = { verb = "get", is_resource = true, group = CLUSTERS, qualified = "clusters", namespace = "", name = cluster }
  local function any(list)
    for _, index in ipairs(list or {}) do
      local rules = policy.bindings[index].rules
      if any_matches(rules, listed) or any_matches(rules, got) then return true end
    end
    return false
  end
  if any(policy.bound.users[id.user]) then return true end
  for _, group in ipairs(id.groups) do
    if any(policy.bound.groups[group]) then return true end
  end
  return false
end

local function asking(group, resource, namespace, name, subresource)
  if subresource == "" then subresource = nil end
  return {
    verb = "impersonate", is_resource = true, group = group, resource = resource, namespace = namespace, name = name,
    qualified = subresource and resource .. "/" .. subresource or resource, any = subresource and "*/" .. subresource,
  }
end

-- What must be allowed for each value that the client wants to be.
local function wanted(imp)
  local all = {}
  local namespace, account = match(imp.user, "^system:serviceaccount:([a-z0-9-]+):([a-z0-9.-]+)$")
  all[1] = namespace and asking("", "serviceaccounts", namespace, account) or asking("", "users", "", imp.user)
  for _, group in ipairs(imp.groups) do all[#all + 1] = asking("", "groups", "", group) end
  if imp.uid ~= "" then all[#all + 1] = asking("authentication.k8s.io", "uids", "", imp.uid) end
  local keys = {}
  for key in pairs(imp.extra) do keys[#keys + 1] = key end
  sort(keys)
  for _, key in ipairs(keys) do
    for _, value in ipairs(imp.extra[key]) do
      all[#all + 1] = asking("authentication.k8s.io", "userextras", "", value, key)
    end
  end
  return all
end

-- When the right to be what `a` asks for ends; or nil and why there is none.
local function impersonating(id, cluster, a, now)
  if a.qualified == "groups" and begins(a.name, "system:") then return nil, denied(id.user, cluster, a, NEVER_GROUPS) end
  if a.qualified == "users" and a.name == "system:anonymous" then
    return nil, denied(id.user, cluster, a, NEVER_ANONYMOUS)
  end
  found = false
  offer_bindings(policy.bound.users[id.user], a, cluster, false, true) -- all alike: only the end counts
  offer_grants(policy.granted.users[id.user], a, cluster, now, false, true)
  for _, group in ipairs(id.groups) do
    offer_bindings(policy.bound.groups[group], a, cluster, false, true)
    offer_grants(policy.granted.groups[group], a, cluster, now, false, true)
  end
  if not found then return nil, denied(id.user, cluster, a) end
  return best_end
end

-- Why someone whom the member would have to see is refused.
local function never(id, cluster, a)
  return denied(id.user, cluster, a, NEVER_USERS)
end

-- code, message, origin, as_user, until (nil: no end), here
local function decide(id, cluster, method, a, upgrade, now, imp)
  if imp and imp.user == "" then return 400, NO_USER end
  local target = policy.targets[cluster]
  if not target then
    if may_know(id, cluster) then return 404, format('clusters.cluster.karpor.io "%s" not found', cluster) end
    return 403, denied(id.user, cluster, a)
  end
  local carrier = onepass.requestinfo.verb_of(method, upgrade)
  local self_review = a.verb == "create" and not upgrade and a.is_resource and a.name == "" and a.namespace == ""
    and a.subresource == "" and SELF_REVIEWS[a.group] ~= nil and SELF_REVIEWS[a.group][a.resource] or false
  local free = self_review or carrier == "get" and not a.is_resource
    and (DISCOVERY[a.path] or begins(a.path, "/api/") or begins(a.path, "/apis/") or begins(a.path, "/openapi/"))
  offer_ways(id, target, cluster, carrier, a, now, free)
  if not found then return 403, denied(id.user, cluster, a) end
  if best_as_user and begins(id.user, "system:") then return 403, never(id, cluster, a) end
  local origin, as_user, ends = best_origin, best_as_user, best_end
  if imp then
    for _, each in ipairs(wanted(imp)) do
      local till, why = impersonating(id, cluster, each, now)
      if not till then return 403, why end
      if till < ends then ends = till end
    end
  end
  return 200, "", origin, as_user, ends ~= huge and ends or nil, self_review and not as_user and not imp
end

onepass.rules = { decide = decide, never = never }
