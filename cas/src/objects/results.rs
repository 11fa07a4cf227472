//! Results as objects.

use async_trait::async_trait;
use castwork_proto::reapi::ActionResult;
use tracing::warn;

use super::{Objects, name};
use crate::files::{decode_result, encode_result};
use crate::store::collect;
use crate::{ActionCache, ActionKey, StoreError};

/// A result says nothing about whether the blobs it names are there: wrap it in [`Complete`](crate::Complete), or
/// look before use.
///
/// Where an object can't be changed once it is there (`gha:`), the first result for an action stays.
#[async_trait]
impl ActionCache for Objects {
    async fn get(&self, key: &ActionKey) -> Result<Option<ActionResult>, StoreError> {
        let Some(data) = self.read("look up a result", &name::of_result(key)).await? else {
            return Ok(None);
        };
        let result = decode_result(&collect(data, Self::RESULT_BYTES_MAX).await?);
        if result.is_none() {
            warn!(address = %self.address, action = %key.action, "the object of a result is no result");
        }
        Ok(result)
    }

    async fn put(&self, key: &ActionKey, result: ActionResult) -> Result<(), StoreError> {
        self.put_object("keep a result", &name::of_result(key), encode_result(&result).into()).await
    }
}
