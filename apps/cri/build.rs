//! Makes `examples/support/cri/v1.rs`: of CRI v1 the calls that the example answers, and their messages.
//!
//! Run by hand, when a version of CRI is to be followed, and the result is committed: no crate has CRI v1 without asking for
//! protoc, and a build script of ours would be every user's. protox reads the definition, so that this needs no protoc either.
//!
//! ```sh
//! api=$(cd tests/interop/go && go list -m -f '{{.Dir}}' k8s.io/cri-api)/pkg/apis/runtime/v1/api.proto
//! cargo run --manifest-path tests/interop/cri-v1/Cargo.toml -- "$api" examples/support/cri/v1.rs
//! ```

use std::collections::HashSet;
use std::error::Error;
use std::fs;
use std::path::Path;

use prost_types::{DescriptorProto, FileDescriptorProto};

const HEAD: &str = "\
// CRI v1, made by tests/interop/cri-v1 from k8s.io/cri-api, which is under the Apache License 2.0. Do not edit.
#![allow(clippy::all, dead_code, missing_docs, unreachable_pub, unused_qualifications, elided_lifetimes_in_paths)]

";

/// All others are answered with UNIMPLEMENTED, as calls are that a runtime does not know.
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
    let mut arguments = std::env::args().skip(1);
    let (Some(definition), Some(to)) = (arguments.next(), arguments.next()) else {
        return Err("cri-v1 API.PROTO TO.RS".into());
    };
    let definition = Path::new(&definition);
    let mut set = protox::compile([definition], [definition.parent().ok_or("the definition is no file")?])?;
    for file in &mut set.file {
        // Their comments are theirs.
        file.source_code_info = None;
        for service in &mut file.service {
            service.method.retain(|method| CALLS.contains(&method.name()));
        }
        let wanted = reachable(file);
        let package = file.package().to_owned();
        file.message_type.retain(|message| wanted.contains(&format!(".{package}.{}", message.name())));
        file.enum_type.retain(|kind| wanted.contains(&format!(".{package}.{}", kind.name())));
    }
    let made = tempfile::tempdir()?;
    tonic_prost_build::configure().build_client(false).out_dir(made.path()).compile_fds(set)?;
    let code = fs::read_to_string(made.path().join("runtime.v1.rs"))?;
    Ok(fs::write(to, format!("{HEAD}{code}"))?)
}

/// The messages and enums that the calls need.
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

/// What the fields of a message are, and of those within it, such as the entries of its maps.
fn types(message: &DescriptorProto) -> Vec<String> {
    let own = message.field.iter().map(|field| field.type_name().to_owned()).filter(|name| !name.is_empty());
    own.chain(message.nested_type.iter().flat_map(types)).collect()
}
