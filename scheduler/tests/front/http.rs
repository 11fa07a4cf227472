//! The cache on the HTTP port, asked as its clients ask.

use bytes::Bytes;
use castwork_cas::Digest;
use castwork_proto::reapi::{ActionResult, GetActionResultRequest, OutputFile};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

use crate::support::{BLAKE3, House, SHA256, noise};

/// What an HTTP request came to.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    body: Bytes,
}

impl Answer {
    fn read(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("the end of the headers");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        Self { status, head, body: Bytes::copy_from_slice(&bytes[end + 4..]) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

async fn send(house: &House, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(house.server.http_address()).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    Answer::read(&answer)
}

fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: castwork\r\nConnection: close\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

pub(crate) async fn get(house: &House, path: &str) -> Answer {
    send(house, &request("GET", path, "", b"")).await
}

pub(crate) async fn put(house: &House, path: &str, body: &[u8]) -> u16 {
    let length = format!("Content-Length: {}\r\n", body.len());
    send(house, &request("PUT", path, &length, body)).await.status
}

fn blob_path(digest: &Digest) -> String {
    format!("/cas/{}", digest.hash_hex())
}

#[tokio::test]
async fn a_blob_is_had_by_its_hash_alone_and_is_the_same_blob_for_everyone() {
    let house = House::start().await;
    let data = noise(1, 700_000);
    let digest = Digest::of(SHA256, &data);
    let path = blob_path(&digest);
    assert_eq!(get(&house, &path).await.status, 404);
    assert_eq!(put(&house, &path, &data).await, 201);
    assert!(house.has(&digest).await, "it is there for gRPC");
    assert_eq!(put(&house, &path, &data).await, 201, "again");
    let answer = get(&house, &path).await;
    assert_eq!((answer.status, &answer.body), (200, &data));
    let head = send(&house, &request("HEAD", &path, "Range: bytes=1-2\r\n", b"")).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(head.head.contains("content-length: 700000"), "{}", head.head);
    let part = send(&house, &request("GET", &path, "Range: bytes=299999-300009\r\n", b"")).await;
    assert_eq!((part.status, &part.body[..]), (206, &data[299_999..300_010]));
    assert!(part.head.contains("content-range: bytes 299999-300009/700000"), "{}", part.head);
    let past = send(&house, &request("GET", &path, "Range: bytes=700000-\r\n", b"")).await;
    assert_eq!(past.status, 416);
    let house = house.restart().await;
    assert_eq!(get(&house, &path).await.body, data, "after a restart");
    assert_eq!(get(&house, &blob_path(&Digest::empty(SHA256))).await.status, 200, "the blob of no bytes");
}

#[tokio::test]
async fn what_is_not_the_blob_that_it_is_called_is_refused() {
    let house = House::start().await;
    let digest = Digest::of(SHA256, b"right");
    assert_eq!(put(&house, &blob_path(&digest), b"wrong").await, 400);
    assert_eq!(put(&house, &blob_path(&digest), b"right and more").await, 400);
    assert_eq!(get(&house, &blob_path(&digest)).await.status, 404);
    assert_eq!(put(&house, &blob_path(&digest), b"right").await, 201, "a liar before does not matter");
    assert_eq!(put(&house, "/cas/abc", b"").await, 400);
    assert_eq!(put(&house, &format!("/nowhere/cas/{}", digest.hash_hex()), b"right").await, 400);
    let chunked = request("PUT", &blob_path(&digest), "Transfer-Encoding: chunked\r\n", b"0\r\n\r\n");
    assert_eq!(send(&house, &chunked).await.status, 411);
    assert_eq!(send(&house, &request("DELETE", &blob_path(&digest), "", b"")).await.status, 405);
    assert!(house.has(&digest).await);
}

#[tokio::test]
async fn a_result_is_answered_while_its_blobs_can_be_had_over_http() {
    let house = House::start().await;
    let (data, action) = (noise(2, 5000), Digest::of(SHA256, b"an action"));
    let output = Digest::of(SHA256, &data);
    let file = OutputFile { path: "a.o".to_owned(), digest: Some(output.to_proto()), ..Default::default() };
    let mut sent = ActionResult { output_files: vec![file], ..Default::default() }.encode_to_vec();
    // A field that this version does not know.
    prost::encoding::string::encode(4000, &"from the future".to_owned(), &mut sent);
    let path = format!("/ac/{}", action.hash_hex());
    assert_eq!(put(&house, &path, &sent).await, 201);
    assert_eq!(get(&house, &path).await.status, 404, "its blob is missing");
    house.put(data.clone()).await;
    assert_eq!(get(&house, &path).await.status, 404, "its blob is there, but nobody said of what size it is");
    assert_eq!(put(&house, &blob_path(&output), &data).await, 201);
    let answer = get(&house, &path).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &sent[..]), "byte by byte");
    let other = format!("/team/main/ac/{}", action.hash_hex());
    assert_eq!(get(&house, &other).await.status, 404, "instances do not share results");
    for no_result in [&b""[..], b"\xcc\xac\x01 an entry of ccache"] {
        assert_eq!(put(&house, &path, no_result).await, 400);
    }
}

#[tokio::test]
async fn an_entry_is_kept_under_any_name_in_its_own_namespace() {
    let house = House::start().await;
    // Within a result, in one blob, and in several.
    for (number, length) in [(1, 0), (2, 1), (3, 16 << 10), (4, (16 << 10) + 1), (5, 1 << 20), (6, 3_500_000)]
    {
        let data = noise(number, length);
        let path = format!("/ccache/team/{number:02x}/entry");
        assert_eq!(get(&house, &path).await.status, 404);
        assert_eq!(put(&house, &path, &data).await, 201);
        let answer = get(&house, &path).await;
        assert_eq!((answer.status, answer.body), (200, data), "{length} bytes");
        assert_eq!(get(&house, &path.replace("/ccache", "/sccache")).await.status, 404);
    }
    let data = noise(6, 3_500_000);
    let range = "Range: bytes=1048570-2097160\r\n";
    let part = send(&house, &request("GET", "/ccache/team/06/entry", range, b"")).await;
    assert_eq!((part.status, part.body), (206, data.slice(1_048_570..2_097_161)));
    let house = house.restart().await;
    assert_eq!(get(&house, "/ccache/team/06/entry").await.body, data, "after a restart");
    assert_eq!(put(&house, "/ccache/team/06/entry", b"new").await, 201);
    assert_eq!(get(&house, "/ccache/team/06/entry").await.text(), "new");
    let delete = request("DELETE", "/ccache/team/06/entry", "", b"");
    assert_eq!(send(&house, &delete).await.status, 204);
    assert_eq!(get(&house, "/ccache/team/06/entry").await.status, 404);
    assert_eq!(send(&house, &delete).await.status, 404, "it is gone already");
    assert_eq!(put(&house, "/ccache/team/06/entry", b"back").await, 201);
    assert_eq!(get(&house, "/ccache/team/06/entry").await.text(), "back");
}

#[tokio::test]
async fn an_upload_without_a_length_may_be_an_entry() {
    let house = House::start().await;
    let chunks = b"5\r\nfirst\r\n7\r\n second\r\n0\r\n\r\n";
    let put = request("PUT", "/ccache/chunked", "Transfer-Encoding: chunked\r\n", chunks);
    assert_eq!(send(&house, &put).await.status, 201);
    assert_eq!(get(&house, "/ccache/chunked").await.text(), "first second");
}

#[tokio::test]
async fn an_upload_that_breaks_off_or_is_silent_changes_nothing() {
    let idle = std::time::Duration::from_millis(50);
    let house = House::start_with(|_| (), |limits| limits.upload_idle = idle).await;
    assert_eq!(put(&house, "/sccache/k", b"old").await, 201);
    let (some, length) = (noise(3, 1_500_000), "Content-Length: 2000000\r\n");
    let torn = request("PUT", "/sccache/k", length, &some);
    let mut stream = TcpStream::connect(house.server.http_address()).await.unwrap();
    stream.write_all(&torn).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    // It is answered or it is not: nobody is there to care.
    let _ = stream.read_to_end(&mut rest).await;
    assert_eq!(get(&house, "/sccache/k").await.text(), "old");
    let silent = send(&house, &torn).await;
    assert_eq!(silent.status, 408);
    assert_eq!(get(&house, "/sccache/k").await.text(), "old");
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_sent() {
    let house = House::start_with(|_| (), |limits| limits.blob_bytes_max = 100_000).await;
    let digest = Digest::of(SHA256, b"x");
    for path in ["/ccache/k".to_owned(), "/sccache/k".to_owned(), blob_path(&digest)] {
        let headers = "Content-Length: 100001\r\nExpect: 100-continue\r\n";
        let answer = send(&house, &request("PUT", &path, headers, b"")).await;
        assert_eq!(answer.status, 413, "{path}");
    }
    // And one that does not say how large it is, as soon as it shows.
    let chunk = [&b"186a1\r\n"[..], &noise(4, 100_001), b"\r\n0\r\n\r\n"].concat();
    let put = request("PUT", "/ccache/k", "Transfer-Encoding: chunked\r\n", &chunk);
    assert_eq!(send(&house, &put).await.status, 413);
    assert_eq!(get(&house, "/ccache/k").await.status, 404);
    let long = format!("/ccache/{}", "x".repeat(2000));
    assert_eq!(get(&house, &long).await.status, 414);
}

#[tokio::test]
async fn webdav_finds_folders_everywhere_and_entries_where_they_are() {
    let house = House::start().await;
    let find = |path: &'static str, depth: &str| {
        let body = b"<D:propfind xmlns:D=\"DAV:\"><D:allprop/></D:propfind>";
        request("PROPFIND", path, &format!("Depth: {depth}\r\nContent-Length: {}\r\n", body.len()), body)
    };
    let folder = send(&house, &find("/sccache/a/b/", "0")).await;
    assert_eq!(folder.status, 207);
    assert!(folder.text().contains("<D:href>/sccache/a/b/</D:href>"), "{}", folder.text());
    assert!(folder.text().contains("<D:collection/>"), "{}", folder.text());
    assert_eq!(send(&house, &find("/sccache/a/b/", "1")).await.status, 403, "it can't be listed");
    assert_eq!(send(&house, &find("/sccache/a/b/k", "0")).await.status, 404);
    assert_eq!(send(&house, &request("MKCOL", "/sccache/a/b/", "", b"")).await.status, 201);
    assert_eq!(put(&house, "/sccache/a/b/k", b"four").await, 201);
    assert_eq!(put(&house, "/sccache/a/b/", b"four").await, 400);
    let entry = send(&house, &find("/sccache/a/b/k", "0")).await.text();
    assert!(entry.contains("<D:getcontentlength>4</D:getcontentlength>"), "{entry}");
    assert!(entry.contains(" GMT</D:getlastmodified>") && !entry.contains(" 1970 "), "{entry}");
    let options = send(&house, &request("OPTIONS", "/sccache/", "", b"")).await;
    assert!(options.head.contains("\r\ndav: 1"), "{}", options.head);
    assert_eq!(send(&house, &request("LOCK", "/sccache/a", "", b"")).await.status, 405);
}

#[tokio::test]
async fn who_may_only_look_up_stores_nothing_and_off_is_off() {
    let house = House::start().await;
    assert_eq!(put(&house, "/ccache/k", b"kept").await, 201);
    let access = |mode: &str| Some(mode.to_owned());
    let house = house.restart_with(|args| args.http_cache = access("read-only")).await;
    assert_eq!(get(&house, "/ccache/k").await.text(), "kept");
    assert_eq!(put(&house, "/ccache/k", b"other").await, 403);
    assert_eq!(put(&house, &blob_path(&Digest::of(SHA256, b"x")), b"x").await, 403);
    for method in ["DELETE", "MKCOL"] {
        assert_eq!(send(&house, &request(method, "/ccache/k", "", b"")).await.status, 403);
    }
    assert_eq!(get(&house, "/ccache/k").await.text(), "kept");
    let house = house.restart_with(|args| args.http_cache = access("off")).await;
    assert_eq!(get(&house, "/ccache/k").await.status, 404);
    assert_eq!(put(&house, "/ccache/k", b"other").await, 404);
    assert_eq!(get(&house, "/healthz").await.status, 200);
}

#[tokio::test]
async fn no_client_of_grpc_gets_at_what_http_clients_keep() {
    let house = House::start().await;
    assert_eq!(put(&house, "/ccache/k", b"secret").await, 201);
    let request = GetActionResultRequest {
        instance_name: "/http/ccache".to_owned(),
        action_digest: Some(Digest::of(BLAKE3, b"k").to_proto()),
        digest_function: BLAKE3.to_proto() as i32,
        ..Default::default()
    };
    let status = house.results().get_action_result(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn every_cache_is_counted() {
    let house = House::start().await;
    put(&house, "/ccache/k", b"v").await;
    get(&house, "/ccache/k").await;
    get(&house, "/ccache/other").await;
    let metrics = get(&house, "/metrics").await.text();
    for line in [
        "requests_total{cache=\"ccache\"} 3",
        "hits_total{cache=\"ccache\"} 1",
        "misses_total{cache=\"ccache\"} 1",
        "stored_total{cache=\"ccache\"} 1",
        "hits_total{cache=\"bazel\"} 0",
    ] {
        assert!(metrics.lines().any(|got| got == format!("castwork_http_{line}")), "{line}:\n{metrics}");
    }
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_turn() {
    let house = House::start().await;
    let mut stream = TcpStream::connect(house.server.http_address()).await.unwrap();
    let mut all = b"PUT /ccache/k HTTP/1.1\r\nHost: c\r\nContent-Length: 3\r\n\r\nabcGET /ccache/k HTTP/1.1\r\nHost: c\r\n\r\n".to_vec();
    // A refused upload must not spoil what follows it.
    all.extend_from_slice(b"PUT /cas/abc HTTP/1.1\r\nHost: c\r\nContent-Length: 4\r\n\r\nGET ");
    all.extend_from_slice(&request("GET", "/ccache/k", "", b""));
    stream.write_all(&all).await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["201", "200", "400", "200"], "{answers}");
}
