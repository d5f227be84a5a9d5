//! The few fields of the kubelet's messages that are read; protobuf passes over the others.
//!
//! Numbers and types were compared with Kubernetes' own definitions: pkg/apis/podresources/v1/api.proto and pkg/apis/pods/v1alpha1/api.proto
//! of k8s.io/kubelet 0.36.0 and 0.37.0-beta.0, core/v1/generated.proto of k8s.io/api and pkg/apis/meta/v1/generated.proto of
//! k8s.io/apimachinery 0.36.3. What is read of pod resources has the same numbers since 0.28, but for a claim's devices, which came with 0.31.

use prost::Message;

/// The answer of `v1alpha1.Pods/ListPods`: pods as Kubernetes itself encodes them, each a message in bytes.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ListPodsResponse {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(super) pods: Vec<prost::bytes::Bytes>,
}

/// k8s.io.api.core.v1.Pod.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Pod {
    #[prost(message, optional, tag = "1")]
    pub(super) metadata: Option<ObjectMeta>,
    #[prost(message, optional, tag = "3")]
    pub(super) status: Option<PodStatus>,
}

/// k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ObjectMeta {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) namespace: String,
}

/// k8s.io.api.core.v1.PodStatus.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PodStatus {
    #[prost(message, repeated, tag = "8")]
    pub(super) container_statuses: Vec<ContainerStatus>,
    #[prost(message, repeated, tag = "10")]
    pub(super) init_container_statuses: Vec<ContainerStatus>,
    #[prost(message, repeated, tag = "13")]
    pub(super) ephemeral_container_statuses: Vec<ContainerStatus>,
}

/// k8s.io.api.core.v1.ContainerStatus.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerStatus {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    /// `RUNTIME://ID`; empty while the container has not been made.
    #[prost(string, tag = "8")]
    pub(super) container_id: String,
}

/// The answer of `v1.PodResourcesLister/List`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ListPodResourcesResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) pod_resources: Vec<PodResources>,
}

/// v1.PodResources.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PodResources {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) namespace: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) containers: Vec<ContainerResources>,
}

/// v1.ContainerResources.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerResources {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) devices: Vec<ContainerDevices>,
    #[prost(message, repeated, tag = "5")]
    pub(super) dynamic_resources: Vec<DynamicResource>,
}

/// v1.ContainerDevices: what a device plugin gave. There is one for each NUMA node.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerDevices {
    #[prost(string, tag = "1")]
    pub(super) resource_name: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) device_ids: Vec<String>,
}

/// v1.DynamicResource: what a claim gave.
#[derive(Clone, PartialEq, Message)]
pub(super) struct DynamicResource {
    #[prost(message, repeated, tag = "4")]
    pub(super) claim_resources: Vec<ClaimResource>,
}

/// v1.ClaimResource: one device of a claim.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ClaimResource {
    #[prost(string, tag = "2")]
    pub(super) driver_name: String,
    #[prost(string, tag = "3")]
    pub(super) pool_name: String,
    #[prost(string, tag = "4")]
    pub(super) device_name: String,
}
