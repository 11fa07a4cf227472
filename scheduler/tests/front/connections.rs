//! The HTTP port.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::House;

/// What the HTTP port answers.
pub(crate) async fn http_get(house: &House, path: &str) -> String {
    let mut stream = TcpStream::connect(house.server.http_address()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: castwork\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_http_port_has_health_and_metrics() {
    let house = House::start().await;
    house.put("four").await;
    assert!(http_get(&house, "/healthz").await.starts_with("HTTP/1.1 200 OK"));
    let metrics = http_get(&house, "/metrics").await;
    for line in [
        "castwork_requests_total 1",
        "castwork_blobs_stored_total 1",
        "castwork_blob_stored_bytes_total 4",
        "castwork_actions_queued 0",
        "castwork_store_records 1",
        "castwork_store_takes_writes 1",
        "# TYPE castwork_store_bytes gauge",
    ] {
        assert!(metrics.lines().any(|got| got == line), "{line} is not in\n{metrics}");
    }
    assert!(http_get(&house, "/nothing").await.starts_with("HTTP/1.1 404"));
}
