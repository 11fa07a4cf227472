//! What can only be seen from inside. The services over loopback are in `tests/execution`.

use std::sync::Arc;

use bytes::Bytes;
use castwork_cas::files::FileBlobs;
use castwork_cas::merkle::TreeBuilder;
use castwork_cas::store::stream_of;
use castwork_cas::{ActionKey, BlobStore as _, Complete, Digest, DigestFunction};
use castwork_proto::reapi::{Action, Command};
use prost::Message as _;

use super::{Dispatch, Limits, Watch, start};
use crate::front::instance::Instances;
use crate::queue::{OperationId, Origin, Request};
use crate::store::pins::Pins;
use crate::{Counters, Services};

const FUNCTION: DigestFunction = DigestFunction::Sha256;

struct Fixture {
    _folder: tempfile::TempDir,
    blobs: FileBlobs,
    pins: Pins,
    dispatch: Dispatch,
}

impl Fixture {
    fn new(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let blobs = FileBlobs::open(folder.path(), u64::MAX).unwrap();
        let services = Services {
            blobs: Arc::new(blobs.clone()),
            results: Arc::new(Complete::new(blobs.results(), blobs.clone())),
            instances: Arc::new(Instances::new([])),
            pins: Pins::default(),
            counters: Arc::new(Counters::default()),
            runs: Arc::default(),
            tracer: castwork_trace::Tracer::default(),
        };
        let pins = services.pins.clone();
        Self { _folder: folder, blobs, pins, dispatch: start(services, limits) }
    }

    async fn put(&self, data: impl Into<Bytes>) -> Digest {
        let data = data.into();
        let digest = Digest::of(FUNCTION, &data);
        self.blobs.put(&digest, stream_of(data)).await.unwrap();
        digest
    }

    /// Uploads an action with one input; returns its digest and the input's.
    async fn action(&self) -> (Digest, Digest) {
        let input = self.put("input").await;
        let mut tree = TreeBuilder::new();
        tree.add_file("a.c", input, false).unwrap();
        let built = tree.build(FUNCTION);
        for (_, data) in built.directories {
            self.put(data).await;
        }
        let command = Command { arguments: vec!["cc".to_owned()], ..Default::default() };
        let command = self.put(command.encode_to_vec()).await;
        let action = Action {
            command_digest: Some(command.to_proto()),
            input_root_digest: Some(built.root.to_proto()),
            ..Default::default()
        };
        (self.put(action.encode_to_vec()).await, input)
    }

    async fn open(&self, action: Digest) -> Watch {
        let request = Request {
            operation: OperationId(1),
            key: ActionKey { instance: "".into(), action },
            priority: 0,
            run: "".into(),
            principal: "".into(),
            lookup: true,
            origin: Arc::new(Origin::default()),
        };
        self.dispatch.open(request).await.unwrap()
    }

    async fn until_queued(&self) {
        while self.dispatch.stats().await.counts.queued == 0 {
            tokio::task::yield_now().await;
        }
    }

    fn may_be_evicted(&self, digest: Digest) -> bool {
        self.pins.unless_pinned(&digest, || ())
    }
}

#[tokio::test]
async fn inputs_of_a_queued_action_are_held_until_it_ends() {
    let fixture = Fixture::new(Limits::default());
    let (action, input) = fixture.action().await;
    let _watch = fixture.open(action).await;
    fixture.until_queued().await;
    assert!(!fixture.may_be_evicted(input) && !fixture.may_be_evicted(action));
    fixture.dispatch.cancel(OperationId(1)).await.unwrap();
    assert!(fixture.may_be_evicted(input) && fixture.may_be_evicted(action));
}

#[tokio::test]
async fn beyond_the_bound_inputs_are_not_held_but_the_action_goes_on() {
    let fixture = Fixture::new(Limits { pins_max: 3, ..Limits::default() });
    let (action, input) = fixture.action().await;
    let _watch = fixture.open(action).await;
    fixture.until_queued().await;
    assert!(fixture.may_be_evicted(input));
}

#[tokio::test]
async fn it_is_known_that_nobody_looks_after_the_queue() {
    let dispatch = Fixture::new(Limits::default()).dispatch;
    let ended = dispatch.ended();
    tokio::pin!(ended);
    assert!(futures::poll!(&mut ended).is_pending());
    // As a panic does.
    dispatch.inner.owner.lock().await.as_ref().unwrap().abort();
    ended.await;
}
