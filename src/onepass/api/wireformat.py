"""The field numbers by which Kubernetes' own kinds travel as protobuf.

kubectl and client-go send the kinds that they were compiled with in this encoding, and do not fall back to JSON when it
is refused. Numbers: the `generated.proto` files of k8s.io/api and k8s.io/apimachinery; names are those of the JSON.

A message is a line of fields, each `name=number`, a string unless it is said to be `:int`, `:bool`, `:bytes`,
`:Message`, a list (`:[]`, `:[Message]`) or a map from strings (`:{}`, `:{bytes}`, `:{Message}`). The encoding has a
zero where JSON has nothing; a `?` marks the numbers and booleans whose zero says something.
"""

_CONDITION = "type=1 status=2 lastTransitionTime=4:Time reason=5 message=6"
_REVIEW_SPEC = "resourceAttributes=1:ResourceAttributes nonResourceAttributes=2:NonResourceAttributes"
_RULE = "verbs=1:[] apiGroups=2:[] resources=3:[] resourceNames=4:[]"

MESSAGES: dict[str, str] = {
    # The envelope, behind the four bytes "k8s\0" (runtime.Unknown).
    "Unknown": "typeMeta=1:TypeMeta raw=2:bytes contentEncoding=3 contentType=4",
    "TypeMeta": "apiVersion=1 kind=2",
    # Written in another way in JSON; onepass.apiserver.protobuf knows how.
    "Time": "seconds=1:int nanos=2:int",
    "MicroTime": "seconds=1:int nanos=2:int",
    "IntOrString": "type=1:int intVal=2:int strVal=3",
    "FieldsV1": "Raw=1:bytes",
    "Values": "items=1:[]",
    # meta/v1
    "ObjectMeta": "name=1 generateName=2 namespace=3 selfLink=4 uid=5 resourceVersion=6 generation=7:int "
    "creationTimestamp=8:Time deletionTimestamp=9:Time deletionGracePeriodSeconds=10:int? labels=11:{} "
    "annotations=12:{} "
    "ownerReferences=13:[OwnerReference] finalizers=14:[] managedFields=17:[ManagedFieldsEntry]",
    "OwnerReference": "kind=1 name=3 uid=4 apiVersion=5 controller=6:bool? blockOwnerDeletion=7:bool?",
    "ManagedFieldsEntry": "manager=1 operation=2 apiVersion=3 time=4:Time fieldsType=6 fieldsV1=7:FieldsV1 "
    "subresource=8",
    "LabelSelector": "matchLabels=1:{} matchExpressions=2:[Requirement]",
    "Requirement": "key=1 operator=2 values=3:[]",
    "Condition": f"{_CONDITION} observedGeneration=3:int",
    "DeleteOptions": "gracePeriodSeconds=1:int? preconditions=2:Preconditions orphanDependents=3:bool? "
    "propagationPolicy=4 dryRun=5:[] ignoreStoreReadErrorWithClusterBreakingPotential=6:bool?",
    "Preconditions": "uid=1 resourceVersion=2",
    # core/v1
    "Namespace": "metadata=1:ObjectMeta spec=2:NamespaceSpec status=3:NamespaceStatus",
    "NamespaceSpec": "finalizers=1:[]",
    "NamespaceStatus": "phase=1 conditions=2:[NamespaceCondition]",
    "NamespaceCondition": _CONDITION,
    "ServiceAccount": "metadata=1:ObjectMeta secrets=2:[ObjectReference] imagePullSecrets=3:[LocalObjectReference] "
    "automountServiceAccountToken=4:bool?",
    "ObjectReference": "kind=1 namespace=2 name=3 uid=4 apiVersion=5 resourceVersion=6 fieldPath=7",
    "LocalObjectReference": "name=1",
    "ConfigMap": "metadata=1:ObjectMeta data=2:{} binaryData=3:{bytes} immutable=4:bool?",
    "Secret": "metadata=1:ObjectMeta data=2:{bytes} type=3 stringData=4:{} immutable=5:bool?",
    "Service": "metadata=1:ObjectMeta spec=2:ServiceSpec status=3:ServiceStatus",
    "ServiceSpec": "ports=1:[ServicePort] selector=2:{} clusterIP=3 type=4 externalIPs=5:[] sessionAffinity=7 "
    "loadBalancerIP=8 loadBalancerSourceRanges=9:[] externalName=10 externalTrafficPolicy=11 "
    "healthCheckNodePort=12:int "
    "publishNotReadyAddresses=13:bool sessionAffinityConfig=14:SessionAffinityConfig ipFamilyPolicy=17 "
    "clusterIPs=18:[] "
    "ipFamilies=19:[] allocateLoadBalancerNodePorts=20:bool? loadBalancerClass=21 internalTrafficPolicy=22 "
    "trafficDistribution=23",
    "ServicePort": "name=1 protocol=2 port=3:int targetPort=4:IntOrString nodePort=5:int appProtocol=6",
    "SessionAffinityConfig": "clientIP=1:ClientIPConfig",
    "ClientIPConfig": "timeoutSeconds=1:int?",
    "ServiceStatus": "loadBalancer=1:LoadBalancerStatus conditions=2:[Condition]",
    "LoadBalancerStatus": "ingress=1:[LoadBalancerIngress]",
    "LoadBalancerIngress": "ip=1 hostname=2 ipMode=3 ports=4:[PortStatus]",
    "PortStatus": "port=1:int protocol=2 error=3",
    "Event": "metadata=1:ObjectMeta involvedObject=2:ObjectReference reason=3 message=4 source=5:EventSource "
    "firstTimestamp=6:Time lastTimestamp=7:Time count=8:int type=9 eventTime=10:MicroTime series=11:EventSeries "
    "action=12 "
    "related=13:ObjectReference reportingComponent=14 reportingInstance=15",
    "EventSource": "component=1 host=2",
    "EventSeries": "count=1:int lastObservedTime=2:MicroTime",
    # rbac.authorization.k8s.io/v1
    "ClusterRole": "metadata=1:ObjectMeta rules=2:[PolicyRule] aggregationRule=3:AggregationRule",
    "Role": "metadata=1:ObjectMeta rules=2:[PolicyRule]",
    "ClusterRoleBinding": "metadata=1:ObjectMeta subjects=2:[Subject] roleRef=3:RoleRef",
    "RoleBinding": "metadata=1:ObjectMeta subjects=2:[Subject] roleRef=3:RoleRef",
    "PolicyRule": f"{_RULE} nonResourceURLs=5:[]",
    "AggregationRule": "clusterRoleSelectors=1:[LabelSelector]",
    "Subject": "kind=1 apiGroup=2 name=3 namespace=4",
    "RoleRef": "apiGroup=1 kind=2 name=3",
    # certificates.k8s.io/v1
    "CertificateSigningRequest": "metadata=1:ObjectMeta spec=2:CertificateSigningRequestSpec "
    "status=3:CertificateSigningRequestStatus",
    "CertificateSigningRequestSpec": "request=1:bytes username=2 uid=3 groups=4:[] usages=5:[] extra=6:{Values} "
    "signerName=7 expirationSeconds=8:int?",
    "CertificateSigningRequestStatus": "conditions=1:[CertificateSigningRequestCondition] certificate=2:bytes",
    "CertificateSigningRequestCondition": "type=1 reason=2 message=3 lastUpdateTime=4:Time lastTransitionTime=5:Time "
    "status=6",
    # authentication.k8s.io/v1
    "TokenRequest": "metadata=1:ObjectMeta spec=2:TokenRequestSpec status=3:TokenRequestStatus",
    "TokenRequestSpec": "audiences=1:[] boundObjectRef=3:BoundObjectReference expirationSeconds=4:int?",
    "BoundObjectReference": "kind=1 apiVersion=2 name=3 uid=4",
    "TokenRequestStatus": "token=1 expirationTimestamp=2:Time",
    "TokenReview": "metadata=1:ObjectMeta spec=2:TokenReviewSpec status=3:TokenReviewStatus",
    "TokenReviewSpec": "token=1 audiences=2:[]",
    "TokenReviewStatus": "authenticated=1:bool user=2:UserInfo error=3 audiences=4:[]",
    "SelfSubjectReview": "metadata=1:ObjectMeta status=2:SelfSubjectReviewStatus",
    "SelfSubjectReviewStatus": "userInfo=1:UserInfo",
    "UserInfo": "username=1 uid=2 groups=3:[] extra=4:{Values}",
    # authorization.k8s.io/v1
    "SubjectAccessReview": "metadata=1:ObjectMeta spec=2:SubjectAccessReviewSpec status=3:SubjectAccessReviewStatus",
    "LocalSubjectAccessReview": "metadata=1:ObjectMeta spec=2:SubjectAccessReviewSpec "
    "status=3:SubjectAccessReviewStatus",
    "SelfSubjectAccessReview": "metadata=1:ObjectMeta spec=2:SelfSubjectAccessReviewSpec "
    "status=3:SubjectAccessReviewStatus",
    "SelfSubjectRulesReview": "metadata=1:ObjectMeta spec=2:SelfSubjectRulesReviewSpec "
    "status=3:SubjectRulesReviewStatus",
    "SubjectAccessReviewSpec": f"{_REVIEW_SPEC} user=3 groups=4:[] extra=5:{{Values}} uid=6",
    "SelfSubjectAccessReviewSpec": _REVIEW_SPEC,
    "SelfSubjectRulesReviewSpec": "namespace=1",
    "ResourceAttributes": "namespace=1 verb=2 group=3 version=4 resource=5 subresource=6 name=7 "
    "fieldSelector=8:SelectorAttributes labelSelector=9:SelectorAttributes",
    "SelectorAttributes": "rawSelector=1 requirements=2:[Requirement]",
    "NonResourceAttributes": "path=1 verb=2",
    "SubjectAccessReviewStatus": "allowed=1:bool reason=2 evaluationError=3 denied=4:bool",
    "SubjectRulesReviewStatus": "resourceRules=1:[ResourceRule] nonResourceRules=2:[NonResourceRule] incomplete=3:bool "
    "evaluationError=4",
    "ResourceRule": _RULE,
    "NonResourceRule": "verbs=1:[] nonResourceURLs=2:[]",
}

# The kinds, which are messages of the same name, by their API version.
KINDS: dict[str, frozenset[str]] = {
    "v1": frozenset({"Namespace", "ServiceAccount", "ConfigMap", "Secret", "Service", "Event", "DeleteOptions"}),
    "meta.k8s.io/v1": frozenset({"DeleteOptions"}),
    "rbac.authorization.k8s.io/v1": frozenset({"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}),
    "certificates.k8s.io/v1": frozenset({"CertificateSigningRequest"}),
    "authentication.k8s.io/v1": frozenset({"TokenRequest", "TokenReview", "SelfSubjectReview"}),
    "authorization.k8s.io/v1": frozenset(
        {"SubjectAccessReview", "LocalSubjectAccessReview", "SelfSubjectAccessReview", "SelfSubjectRulesReview"}
    ),
}
