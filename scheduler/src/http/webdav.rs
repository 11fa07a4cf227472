//! What `WebDAV` asks besides reading and writing (RFC 4918), as far as caches do.
//!
//! Folders are there because a path ends in a slash: none has to be made, and none can be listed.

use std::time::SystemTime;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::values::Value;

/// The methods of an entry.
pub(super) const METHODS: &str = "OPTIONS, GET, HEAD, PUT, DELETE, PROPFIND, MKCOL";

/// Answers `OPTIONS`.
pub(super) fn options() -> Response {
    ([(header::ALLOW, METHODS), (header::HeaderName::from_static("dav"), "1")], StatusCode::OK)
        .into_response()
}

/// Whether `PROPFIND` asks for what is in a folder, too.
pub(super) fn is_deep(headers: &HeaderMap) -> bool {
    // What is not said means everything below.
    headers.get("depth").is_none_or(|depth| depth != "0")
}

/// Answers a `PROPFIND` that goes deeper than we know.
pub(super) fn too_deep() -> Response {
    let body = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:error xmlns:D=\"DAV:\"><D:propfind-finite-depth/></D:error>\n";
    xml(StatusCode::FORBIDDEN, body.to_owned())
}

/// Answers `PROPFIND` for an entry, or for a folder if there is no value.
pub(super) fn properties(path: &str, value: Option<&Value>) -> Response {
    let stored = httpdate::fmt_http_date(value.map_or(SystemTime::UNIX_EPOCH, |value| value.stored));
    let kind = match value {
        Some(value) => format!("<D:resourcetype/><D:getcontentlength>{}</D:getcontentlength>", value.bytes),
        None => "<D:resourcetype><D:collection/></D:resourcetype>".to_owned(),
    };
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:multistatus xmlns:D=\"DAV:\"><D:response>\
         <D:href>{}</D:href><D:propstat><D:prop>{kind}<D:getlastmodified>{stored}</D:getlastmodified></D:prop>\
         <D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response></D:multistatus>\n",
        escape(path)
    );
    xml(StatusCode::MULTI_STATUS, body)
}

fn xml(status: StatusCode, body: String) -> Response {
    let kind = HeaderValue::from_static("application/xml; charset=utf-8");
    (status, [(header::CONTENT_TYPE, kind)], body).into_response()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_write_markup() {
        assert_eq!(escape("/a<b>&c"), "/a&lt;b&gt;&amp;c");
    }

    #[test]
    fn only_a_depth_of_zero_is_not_deep() {
        let depth = |depth: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("depth", HeaderValue::from_static(depth));
            is_deep(&headers)
        };
        assert!(!depth("0"));
        assert!(depth("1") && depth("infinity") && is_deep(&HeaderMap::new()));
    }
}
