//! Results as objects.

use async_trait::async_trait;
use castwork_proto::reapi::ActionResult;
use tracing::warn;

use super::blobs::Put;
use super::{Objects, name};
use crate::files::{decode_result, encode_result};
use crate::store::collect;
use crate::{ActionCache, ActionKey, StoreError};

/// A result says nothing about whether the blobs it names are there: wrap it in [`Complete`](crate::Complete), or
/// look before use.
///
/// Where an object can't be changed once it is there (`gha:`), the first result for an action stays: see
/// [`Objects::put_new_result`].
#[async_trait]
impl ActionCache for Objects {
    async fn get(&self, key: &ActionKey) -> Result<Option<ActionResult>, StoreError> {
        let Some(data) = self.read("look up a result", &name::of_result(key)).await? else {
            return Ok(None);
        };
        let result = decode_result(key, &collect(data, Self::RESULT_BYTES_MAX).await?);
        if result.is_none() {
            warn!(address = %self.address, action = %key.action, "the object of a result is no result");
        }
        Ok(result)
    }

    async fn put(&self, key: &ActionKey, result: ActionResult) -> Result<(), StoreError> {
        self.put_object("keep a result", &name::of_result(key), encode_result(key, &result).into())
            .await
            .map(drop)
    }
}

impl Objects {
    /// Keeps a result as [`ActionCache::put`] does, and says whether it did: `false` where nothing that is there can be
    /// changed, and something is.
    ///
    /// # Errors
    /// As [`ActionCache::put`].
    pub async fn put_new_result(&self, key: &ActionKey, result: &ActionResult) -> Result<bool, StoreError> {
        let data = encode_result(key, result).into();
        let put = self.put_object("keep a result", &name::of_result(key), data).await?;
        Ok(put == Put::Written)
    }

    /// Removes a result; it is no error if there is none.
    ///
    /// # Errors
    /// If the store can't be reached, refuses, or was opened to be read only.
    pub async fn remove_result(&self, key: &ActionKey) -> Result<(), StoreError> {
        const STEP: &str = "take back a result";
        self.may_write(STEP)?;
        let name = name::of_result(key);
        self.attempt(STEP, || self.operator.delete(&name)).await.map(drop)
    }
}
