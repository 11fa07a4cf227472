//! The wire of Castwork, as Rust types: what the `.proto` files in `api/` say, read without taking more memory than a
//! message of its length may ([`weigh`]), and nothing more.
//!
//! The code in `src/generated` is committed, so that nobody needs `protoc` to build, and a test
//! regenerates it. Checked types, such as a digest that is known to be well-formed, are in
//! `castwork-cas`.

#![allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod codec;
pub mod weigh;

pub mod build {
    pub mod bazel {
        pub mod remote {
            pub mod execution {
                pub mod v2 {
                    include!("generated/build.bazel.remote.execution.v2.rs");
                }
            }
        }
        pub mod semver {
            include!("generated/build.bazel.semver.rs");
        }
    }
}

pub mod castwork {
    pub mod admin {
        pub mod v1 {
            include!("generated/castwork.admin.v1.rs");
        }
    }
    pub mod runs {
        pub mod v1 {
            include!("generated/castwork.runs.v1.rs");
        }
    }
    pub mod worker {
        pub mod v1 {
            include!("generated/castwork.worker.v1.rs");
        }
    }
}

pub mod google {
    pub mod bytestream {
        include!("generated/google.bytestream.rs");
    }
    pub mod longrunning {
        include!("generated/google.longrunning.rs");
    }
    pub mod rpc {
        include!("generated/google.rpc.rs");
    }
}

pub mod opentelemetry {
    pub mod proto {
        pub mod collector {
            pub mod trace {
                pub mod v1 {
                    include!("generated/opentelemetry.proto.collector.trace.v1.rs");
                }
            }
        }
        pub mod common {
            pub mod v1 {
                include!("generated/opentelemetry.proto.common.v1.rs");
            }
        }
        pub mod resource {
            pub mod v1 {
                include!("generated/opentelemetry.proto.resource.v1.rs");
            }
        }
        pub mod trace {
            pub mod v1 {
                include!("generated/opentelemetry.proto.trace.v1.rs");
            }
        }
    }
}

pub use build::bazel::remote::execution::v2 as reapi;
pub use build::bazel::semver;
pub use castwork::admin::v1 as admin;
pub use castwork::runs::v1 as runs;
pub use castwork::worker::v1 as worker;
pub use google::{bytestream, longrunning, rpc};
pub use opentelemetry::proto as otlp;

/// The descriptors of all the `.proto` files, for gRPC server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");
