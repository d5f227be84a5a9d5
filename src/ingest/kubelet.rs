//! What the kubelet tells over its Unix sockets: the names of containers by their ids, and the devices that containers were given.
//!
//! The two APIs know different things. The pods API has ids and names, so a process's control group leads to its names. The pod-resources
//! API has names and devices but no id of any kind: it says what a container may use, and never whose a process is.

mod call;
mod messages;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use prost::Message;

pub(super) use call::CallError;
use call::unary;
use messages::{ContainerResources, ListPodResourcesResponse, ListPodsResponse, Pod, PodResources};

use crate::registry::{Assigned, ContainerNames};

/// The methods. The host means nothing on a Unix socket, but HTTP wants one.
const LIST_PODS: &str = "http://localhost/v1alpha1.Pods/ListPods";
const LIST_RESOURCES: &str = "http://localhost/v1.PodResourcesLister/List";
/// The fields of pods that are wanted: everything else, environments and annotations among it, stays with the kubelet.
const FIELD_MASK: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-kubernetes-fieldmask"),
    HeaderValue::from_static(
        "metadata.name,metadata.namespace,status.containerStatuses,status.initContainerStatuses,status.ephemeralContainerStatuses",
    ),
);
/// How the resources of Tenstorrent's device plugins and drivers are known.
const VENDOR: &str = "tenstorrent";
/// Containers with devices, at most: as many as there can be devices, each given to one.
const ASSIGNED_MAX: usize = crate::registry::DEVICES_MAX as usize;

/// The names of all containers on this node that have been made, by id.
pub(super) fn container_names(socket: &Path) -> Result<HashMap<String, ContainerNames>, CallError> {
    let answer = unary(socket, LIST_PODS, &HeaderMap::from_iter([FIELD_MASK]))?;
    let pods = ListPodsResponse::decode(answer).map_err(|error| malformed(&error))?.pods;
    let mut names = HashMap::with_capacity(pods.len());
    for pod in pods {
        names.extend(named(Pod::decode(pod).map_err(|error| malformed(&error))?));
    }
    Ok(names)
}

fn named(pod: Pod) -> impl Iterator<Item = (String, ContainerNames)> {
    let (metadata, status) = (pod.metadata.unwrap_or_default(), pod.status.unwrap_or_default());
    let statuses =
        [status.container_statuses, status.init_container_statuses, status.ephemeral_container_statuses];
    statuses.into_iter().flatten().filter_map(move |container| {
        let (_runtime, id) = container.container_id.split_once("://")?;
        let names = ContainerNames {
            namespace: metadata.namespace.clone(),
            pod: metadata.name.clone(),
            container: container.name,
        };
        names.is_whole().then(|| (id.to_owned(), names))
    })
}

/// The containers that were given devices of ours.
pub(super) fn assigned_devices(socket: &Path) -> Result<Vec<Assigned>, CallError> {
    let answer = unary(socket, LIST_RESOURCES, &HeaderMap::new())?;
    let answer = ListPodResourcesResponse::decode(answer).map_err(|error| malformed(&error))?;
    let assigned = answer.pod_resources.into_iter().flat_map(|pod| {
        let PodResources { name: pod, namespace, containers } = pod;
        containers.into_iter().flat_map(move |container| {
            let names = ContainerNames {
                namespace: namespace.clone(),
                pod: pod.clone(),
                container: container.name.clone(),
            };
            let resources = if names.is_whole() { given(container) } else { BTreeMap::new() };
            let assigned =
                move |(resource, device_ids)| Assigned { names: names.clone(), resource, device_ids };
            resources.into_iter().map(assigned)
        })
    });
    Ok(assigned.take(ASSIGNED_MAX).collect())
}

/// A container's devices by resource.
fn given(container: ContainerResources) -> BTreeMap<String, Vec<String>> {
    let claims = container.dynamic_resources.into_iter().flat_map(|claim| claim.claim_resources);
    let claimed = claims.map(|claim| {
        let device_id = format!("{}/{}", claim.pool_name, claim.device_name);
        (claim.driver_name, vec![device_id])
    });
    let plugged = container.devices.into_iter().map(|devices| (devices.resource_name, devices.device_ids));
    let mut resources: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (resource, device_ids) in plugged.chain(claimed).filter(|(resource, _)| resource.contains(VENDOR)) {
        resources.entry(resource).or_default().extend(device_ids);
    }
    resources
}

fn malformed(error: &prost::DecodeError) -> CallError {
    CallError::Malformed(error.to_string())
}
