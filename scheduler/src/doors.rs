//! What comes from outside, for `fuzz/` alone: the parsers behind the doors, each as one function that takes anything.

use castwork_cas::Digest;
use castwork_cas::DigestFunction;
use castwork_proto::reapi;

/// The page of a tree that is asked for.
pub fn tree_pages(root: Option<&reapi::Digest>, page_size: i32, page_token: &str) {
    let root = root.and_then(|root| Digest::from_proto(root, DigestFunction::Sha256).ok());
    let root = root.unwrap_or_else(|| Digest::empty(DigestFunction::Sha256));
    let _ = crate::front::tree::Pages::read(root, page_size, page_token);
}

/// A result that somebody states.
pub fn outputs(result: &reapi::ActionResult) {
    let _ = castwork_cas::outputs::check(result);
}

/// The bytes of a segment, and of a result in one.
pub fn segment(data: &[u8]) {
    crate::store::read_anything(data);
}

/// A path of the HTTP cache, and the value of a `Range` header.
pub fn http(path: &str, range: &str) {
    crate::http::read_anything(path, range);
}
