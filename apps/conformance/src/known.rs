//! What servers in use do differently, each with whom it is known of.
//!
//! Owns the words. When one of them applies, a case decides, by what came and not by what the server says it is.

use crate::verdict::Known;

pub static UNREAD_STDIN: Known = Known {
    text: "a command that ends with much of its stdin unread never gets its status through",
    of: "Kubernetes 1.34 with containerd 1.6; cri-streaming 0.37",
};

pub static WRITING_CLIENT: Known = Known {
    text: "what a client writes while the command finishes costs the tail of the output, or its status",
    of: "Kubernetes 1.34 with containerd 1.6, whose sockets are closed with bytes unread; cri-streaming 0.37",
};

pub static NO_WINDOWS: Known = Known {
    text: "no flow control over SPDY: a stream that is not read holds up the others",
    of: "moby/spdystream, all versions up to 0.5.1",
};

pub static OUTLIVES_ITS_CLIENT: Known = Known {
    text: "a command outlives its client: one that reads nothing always, one that reads its stdin now and then",
    of: "containerd and CRI-O, kubernetes/kubernetes#89031",
};

pub static REFUSED_AS_500: Known = Known {
    text: "a request that cannot be served is the server's fault (5xx), not the client's",
    of: "Kubernetes 1.34, where the kubelet learns it from the runtime; whatever stands behind a gateway",
};

pub static REFUSED_AFTER_101: Known = Known {
    text: "a request that cannot be served is upgraded first, and refused as a session that fails",
    of: "Kubernetes 1.30 and later, where the API server translates; cri-streaming 0.37, where the runtime finds out",
};

pub static UNANSWERED: Known =
    Known { text: "a request without a protocol is answered 200, with nothing in it", of: "Kubernetes up to 1.34" };

pub static EARLY_BYTES_LOST: Known = Known {
    text: "bytes that come with the request are lost, which HTTP/1.1 lets no client send before the 101",
    of: "the upgrade-aware proxy of kube-apiserver",
};

pub static SILENT_END: Known = Known {
    text: "of some hundred fast exits one has no status, and no end; in v1 over SPDY, where none is a success, it is one",
    of: "Kubernetes 1.34 with containerd 1.6",
};

pub static CROWDED: Known = Known {
    text: "of many connections at a time some are never served",
    of: "ports that busybox' nc listens on, whose backlog is short: kubectl 1.37 loses 0 to 50 of 100 as well",
};
