//! Our `.proto` files say on the wire what everybody else's say.
//!
//! The oracles are crates that others generated from the standard's own files: `bazel-remote-apis` for
//! REAPI, byte streams and long-running operations, `tonic-types` for `google.rpc`, and `tonic` for the codes.
//! `source` compares everything that `bazel-remote-apis` has, both ways, by reading its generated code;
//! `wire` sends each field of each message through its compiled types; `google_rpc` compares descriptors.

mod google_rpc;
mod source;
mod wire;
