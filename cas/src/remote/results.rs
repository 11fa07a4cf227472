//! Results at another server.

use async_trait::async_trait;
use castwork_proto::reapi;
use castwork_proto::reapi::action_cache_client::ActionCacheClient;
use tonic::Code;
use tonic::transport::Channel;

use super::{MESSAGE_BYTES_MAX, Remote};
use crate::{ActionCache, ActionKey, StoreError};

impl Remote {
    fn actions(&self) -> ActionCacheClient<Channel> {
        ActionCacheClient::new(self.channel())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Looks up a result, and asks for what it names with it, so that a small one takes one round trip: both streams, and
    /// these files. It is a wish; what the server doesn't send along has to be asked for by its digest.
    ///
    /// # Errors
    /// As [`ActionCache::get`].
    pub async fn result_with(
        &self,
        key: &ActionKey,
        files: &[&str],
    ) -> Result<Option<reapi::ActionResult>, StoreError> {
        let message = reapi::GetActionResultRequest {
            instance_name: self.instance.to_string(),
            action_digest: Some(key.action.to_proto()),
            digest_function: key.action.function().to_proto() as i32,
            inline_stdout: !files.is_empty(),
            inline_stderr: !files.is_empty(),
            inline_output_files: files.iter().map(|file| (*file).to_owned()).collect(),
        };
        let call = |request| {
            let mut client = self.actions();
            async move { client.get_action_result(request).await }
        };
        match self.call(&message, call).await {
            Ok(result) => Ok(Some(result)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(self.failed("look up a result", status)),
        }
    }
}

/// Results of this server's instance; the instance of the key is that of another place, and is not sent.
#[async_trait]
impl ActionCache for Remote {
    async fn get(&self, key: &ActionKey) -> Result<Option<reapi::ActionResult>, StoreError> {
        self.result_with(key, &[]).await
    }

    async fn put(&self, key: &ActionKey, result: reapi::ActionResult) -> Result<(), StoreError> {
        let message = reapi::UpdateActionResultRequest {
            instance_name: self.instance.to_string(),
            action_digest: Some(key.action.to_proto()),
            action_result: Some(result),
            digest_function: key.action.function().to_proto() as i32,
            ..Default::default()
        };
        let call = |request| {
            let mut client = self.actions();
            async move { client.update_action_result(request).await }
        };
        self.call(&message, call).await.map(drop).map_err(|status| self.failed("keep a result", status))
    }
}
