//! Known departures: what servers in use do differently, and which servers.
//!
//! Holds the descriptions. A case decides which one applies, by what the server did and not by its name or version.

use crate::verdict::Known;

pub static UNREAD_STDIN: Known = Known {
    text: "a command that ends with much of its stdin unread: its status never arrives",
    of: "Kubernetes 1.34 with containerd 1.6; cri-streaming 0.37",
};

pub static WRITING_CLIENT: Known = Known {
    text: "what a client writes while the command finishes makes it lose the tail of the output, or its status",
    of: "Kubernetes 1.34 with containerd 1.6, which closes sockets with unread bytes; cri-streaming 0.37",
};

pub static NO_WINDOWS: Known = Known {
    text: "no flow control over SPDY: a stream that is not read blocks the others",
    of: "moby/spdystream, all versions up to 0.5.1",
};

pub static OUTLIVES_ITS_CLIENT: Known = Known {
    text: "a command outlives its client: always if it reads nothing, sometimes if it reads its stdin",
    of: "containerd and CRI-O, kubernetes/kubernetes#89031",
};

pub static REFUSED_AS_500: Known = Known {
    text: "a request that cannot be served is answered with a server error (5xx), not a client error",
    of: "Kubernetes 1.34, where the runtime tells the kubelet of it; servers behind a gateway",
};

pub static REFUSED_AFTER_101: Known = Known {
    text: "a request that cannot be served is upgraded first, and then its session fails",
    of: "Kubernetes 1.30 and later, where the API server translates; cri-streaming 0.37, where the runtime finds the fault",
};

pub static UNANSWERED: Known =
    Known { text: "a request without a protocol is answered with 200 and no body", of: "Kubernetes up to 1.34" };

pub static EARLY_BYTES_LOST: Known = Known {
    text: "bytes that come with the request are lost, which HTTP/1.1 lets no client send before the 101",
    of: "the upgrade-aware proxy of kube-apiserver",
};

pub static SILENT_END: Known = Known {
    text: "of some hundred fast exits one has no status and no end; in v1 over SPDY that reads as success",
    of: "Kubernetes 1.34 with containerd 1.6",
};

pub static CROWDED: Known = Known {
    text: "some of many concurrent connections are never served",
    of: "ports on which busybox' nc listens, because of its short backlog: kubectl 1.37 too loses 0 to 50 of 100",
};
