//! [`OperationsService`]: `google.longrunning.Operations`, as far as REAPI's clients need it.

use castwork_proto::longrunning::operations_server::Operations;
use castwork_proto::longrunning::{
    CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest,
    ListOperationsResponse, Operation, WaitOperationRequest,
};
use tonic::{Request, Response, Status};

use super::execution::unknown;
use super::report::current;
use crate::dispatch::{Dispatch, Watch, parse_operation_name};
use crate::queue::OperationId;

/// Looks at operations and cancels them.
pub struct OperationsService {
    dispatch: Dispatch,
}

impl OperationsService {
    pub(crate) fn new(dispatch: Dispatch) -> Self {
        Self { dispatch }
    }

    async fn find(&self, name: &str) -> Result<(OperationId, Watch), Status> {
        self.dispatch.services().counters.requests.add(1);
        let (instance, operation) = parse_operation_name(name).ok_or_else(|| unknown(name))?;
        let found = self.dispatch.look(operation).await?;
        let watch = found.filter(|watch| &*watch.key.instance == instance).ok_or_else(|| unknown(name))?;
        Ok((operation, watch))
    }
}

#[tonic::async_trait]
impl Operations for OperationsService {
    async fn list_operations(
        &self,
        _: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        Err(Status::unimplemented("operations are not listed"))
    }

    async fn get_operation(
        &self,
        request: Request<GetOperationRequest>,
    ) -> Result<Response<Operation>, Status> {
        let (_, watch) = self.find(&request.into_inner().name).await?;
        Ok(Response::new(current(&watch)))
    }

    async fn delete_operation(&self, _: Request<DeleteOperationRequest>) -> Result<Response<()>, Status> {
        Err(Status::unimplemented("operations are forgotten by themselves"))
    }

    /// Ends the operation with CANCELLED. Its action goes on if another client wants it, too.
    /// Cancelling what has ended changes nothing and is no error.
    async fn cancel_operation(
        &self,
        request: Request<CancelOperationRequest>,
    ) -> Result<Response<()>, Status> {
        let (operation, _) = self.find(&request.into_inner().name).await?;
        self.dispatch.cancel(operation).await?;
        Ok(Response::new(()))
    }

    async fn wait_operation(&self, _: Request<WaitOperationRequest>) -> Result<Response<Operation>, Status> {
        Err(Status::unimplemented("wait with `WaitExecution`"))
    }
}
