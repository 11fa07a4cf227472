//! What the server says of itself.

use castwork_proto::reapi::capabilities_client::CapabilitiesClient;
use castwork_proto::reapi::{
    GetCapabilitiesRequest, compressor, digest_function, symlink_absolute_path_strategy,
};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::House;

#[tokio::test]
async fn old_and_new_clients_find_what_they_look_for() {
    // [1]
    let house = House::start().await;
    for instance_name in ["", "team/main", "blake"] {
        let request = GetCapabilitiesRequest { instance_name: instance_name.to_owned() };
        let mut client = CapabilitiesClient::new(house.channel.clone());
        let answer = client.get_capabilities(request).await.unwrap().into_inner();
        let (low, high) = (answer.low_api_version.unwrap(), answer.high_api_version.unwrap());
        assert_eq!((low.major, low.minor), (2, 0));
        assert_eq!((high.major, high.minor), (2, 13));
        let cache = answer.cache_capabilities.unwrap();
        let functions = [
            digest_function::Value::Sha256 as i32,
            digest_function::Value::Blake3 as i32,
            digest_function::Value::Sha384 as i32,
            digest_function::Value::Sha512 as i32,
            digest_function::Value::Sha1 as i32,
        ];
        assert_eq!(cache.digest_functions, functions);
        assert_eq!(cache.supported_compressors, [compressor::Value::Zstd as i32]);
        assert!(cache.action_cache_update_capabilities.unwrap().update_enabled);
        assert!((1..4 << 20).contains(&cache.max_batch_total_size_bytes));
        // What the worker does with absolute targets.
        assert_eq!(
            cache.symlink_absolute_path_strategy,
            symlink_absolute_path_strategy::Value::Disallowed as i32
        );
        assert!(cache.split_blob_support && cache.splice_blob_support);
        assert_eq!(cache.fast_cdc_2020_params.unwrap().avg_chunk_size_bytes, 512 << 10);
        let execution = answer.execution_capabilities.unwrap();
        assert!(execution.exec_enabled);
        assert_eq!(execution.digest_function, digest_function::Value::Sha256 as i32);
        assert_eq!(execution.digest_functions, functions);
    }
}

#[tokio::test]
async fn health_says_that_every_service_serves() {
    let house = House::start().await;
    let mut client = HealthClient::new(house.channel.clone());
    for service in ["", "build.bazel.remote.execution.v2.Execution", "google.bytestream.ByteStream"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = client.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status, ServingStatus::Serving as i32, "{service}");
    }
}

#[tokio::test]
async fn reflection_knows_every_service() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let house = House::start().await;
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut client = ServerReflectionClient::new(house.channel.clone());
    let mut stream = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    let answer = stream.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("it was asked for a list") };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in [
        "build.bazel.remote.execution.v2.ContentAddressableStorage",
        "castwork.worker.v1.Workers",
        "google.bytestream.ByteStream",
        "google.longrunning.Operations",
        "grpc.health.v1.Health",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
}

#[tokio::test]
async fn a_server_that_may_lose_what_it_acknowledged_says_so_everywhere() {
    for (durability, health, gauge) in
        [("durable", "ok\n", "durable 1\n"), ("relaxed", "ok, durability relaxed\n", "durable 0\n")]
    {
        let house = House::start_with(|args| args.durability = Some(durability.to_owned()), |_| ()).await;
        let mut client = CapabilitiesClient::new(house.channel.clone());
        let answer = client.get_capabilities(GetCapabilitiesRequest::default()).await.unwrap();
        assert_eq!(answer.metadata().get("castwork-durability").unwrap(), durability);
        assert!(crate::connections::http_get(&house, "/healthz").await.ends_with(health));
        assert!(
            crate::connections::http_get(&house, "/metrics")
                .await
                .contains(&format!("castwork_store_{gauge}"))
        );
        let digest = house.put("kept all the same").await;
        assert_eq!(house.read(&format!("blobs/{digest}"), 0, 0).await.unwrap(), "kept all the same");
    }
}
