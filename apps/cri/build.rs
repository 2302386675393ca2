//! Generates the Rust code of CRI v1 that the program needs: the calls that it answers, and their messages.
//!
//! `proto/api.proto` is Kubernetes' definition, unchanged, under the Apache License 2.0 that stands at its beginning:
//! `pkg/apis/runtime/v1/api.proto` of `k8s.io/cri-api` v0.37.2. protox compiles it, so no protoc is needed.

use std::collections::HashSet;
use std::error::Error;

use prost_types::{DescriptorProto, FileDescriptorProto};

const FOLDER: &str = "proto";
const DEFINITION: &str = "api.proto";

/// The calls that are answered. All others get UNIMPLEMENTED, the usual answer to a call that a runtime does not know.
const CALLS: &[&str] = &[
    "Version",
    "Status",
    "RuntimeConfig",
    "UpdateRuntimeConfig",
    "RunPodSandbox",
    "StopPodSandbox",
    "RemovePodSandbox",
    "PodSandboxStatus",
    "ListPodSandbox",
    "CreateContainer",
    "StartContainer",
    "StopContainer",
    "RemoveContainer",
    "ListContainers",
    "ContainerStatus",
    "ReopenContainerLog",
    "ExecSync",
    "Exec",
    "Attach",
    "PortForward",
    "ContainerStats",
    "ListContainerStats",
    "PodSandboxStats",
    "ListPodSandboxStats",
    "ListImages",
    "ImageStatus",
    "PullImage",
    "RemoveImage",
    "ImageFsInfo",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={FOLDER}");
    let mut set = protox::compile([DEFINITION], [FOLDER])?;
    for file in &mut set.file {
        // The comments would become Rust documentation and doctests.
        file.source_code_info = None;
        for service in &mut file.service {
            service.method.retain(|method| CALLS.contains(&method.name()));
        }
        let wanted = reachable(file);
        let package = file.package().to_owned();
        file.message_type.retain(|message| wanted.contains(&format!(".{package}.{}", message.name())));
        file.enum_type.retain(|kind| wanted.contains(&format!(".{package}.{}", kind.name())));
    }
    Ok(tonic_prost_build::configure().build_client(false).compile_fds(set)?)
}

/// Returns the messages and enums that the calls need.
fn reachable(file: &FileDescriptorProto) -> HashSet<String> {
    let calls = file.service.iter().flat_map(|service| &service.method);
    let mut found: Vec<String> =
        calls.flat_map(|call| [call.input_type(), call.output_type()]).map(str::to_owned).collect();
    let mut wanted = HashSet::new();
    while let Some(name) = found.pop() {
        let message = file.message_type.iter().find(|message| name.ends_with(&format!(".{}", message.name())));
        if wanted.insert(name.clone())
            && let Some(message) = message
        {
            found.extend(types(message));
        }
    }
    wanted
}

/// Returns the types of a message's fields, and of its nested messages, such as the entries of maps.
fn types(message: &DescriptorProto) -> Vec<String> {
    let own = message.field.iter().map(|field| field.type_name().to_owned()).filter(|name| !name.is_empty());
    own.chain(message.nested_type.iter().flat_map(types)).collect()
}
