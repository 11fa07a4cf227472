//! Uploads by stream, where they meet the bounds of this server. What any server has to do with uploads is in the
//! conformance suite.

use std::time::Duration;

use castwork_cas::Digest;
use castwork_proto::bytestream::{QueryWriteStatusRequest, WriteRequest};
use futures::StreamExt as _;
use tonic::Code;

use crate::support::{House, SHA256, noise, pieces, write_name};

async fn status_of(house: &House, name: &str) -> Result<(i64, bool), Code> {
    let request = QueryWriteStatusRequest { resource_name: name.to_owned() };
    let answer = house.bytestream().query_write_status(request).await;
    let answer = answer.map_err(|status| status.code())?.into_inner();
    Ok((answer.committed_size, answer.complete))
}

#[tokio::test]
async fn a_blob_that_is_too_large_is_refused_on_the_first_message() {
    // [44]
    let house = House::start_with(|_| (), |limits| limits.blob_bytes_max = 1000).await;
    let digest = Digest::from_hex(SHA256, &"0".repeat(64), 1001).unwrap();
    let first = WriteRequest { resource_name: write_name("u", &digest), ..Default::default() };
    let endless = tokio_stream::iter([first]).chain(futures::stream::pending());
    let status = house.bytestream().write(endless).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("1000"));
}

#[tokio::test]
async fn an_upload_that_falls_silent_is_ended_and_kept() {
    // [8]
    let house = House::start_with(|_| (), |limits| limits.upload_idle = Duration::from_millis(20)).await;
    let data = noise(1, 1000);
    let digest = Digest::of(SHA256, &data);
    let name = write_name("u", &digest);
    let mut first = pieces(&name, &data.slice(..500), 1000);
    first[0].finish_write = false;
    let silent = tokio_stream::iter(first).chain(futures::stream::pending());
    let status = house.bytestream().write(silent).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(status_of(&house, &name).await, Ok((500, false)));
}
