//! [`OperationsService`]: `google.longrunning.Operations`, as far as REAPI's clients need it.

use castwork_proto::longrunning::operations_server::Operations;
use castwork_proto::longrunning::{
    CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest,
    ListOperationsResponse, Operation, WaitOperationRequest,
};
use tonic::{Request, Response, Status};

use super::errors::bad;
use super::execution::unknown;
use super::operator::check_operator;
use super::report::current;
use crate::dispatch::{Dispatch, Watch, parse_operation_name};
use crate::queue::{OperationId, id_from_hex};

/// Operations on a page, unless the client says how many.
const PAGE_DEFAULT: usize = 100;
/// Operations on a page, at most: an answer must fit into a message.
const PAGE_MAX: usize = 1_000;

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
    /// Lists operations of one instance, those included that ended a while ago, in no order that means anything.
    /// `name` is `operations` behind the instance's name and a slash; there are no filters. For operators only, as
    /// whoever knows an operation's name may cancel it.
    async fn list_operations(
        &self,
        request: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        self.dispatch.services().counters.requests.add(1);
        check_operator(&request, self.dispatch.limits().operators)?;
        let request = request.into_inner();
        if !request.filter.is_empty() {
            return Err(bad("there are no filters"));
        }
        let instance = match request.name.strip_suffix("operations") {
            Some("") => "",
            Some(prefix) => prefix.trim_end_matches('/'),
            None => &request.name,
        };
        let instance = self.dispatch.services().instances.check(instance)?;
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(id_from_hex(token).map(OperationId).ok_or_else(|| bad("no such page"))?),
        };
        let wanted = usize::try_from(request.page_size).unwrap_or(0);
        let max = if wanted == 0 { PAGE_DEFAULT } else { wanted.min(PAGE_MAX) };
        let listed = self.dispatch.list(after, max).await?;
        let last = listed.last().filter(|_| listed.len() == max);
        let next_page_token = last.map(|watch| format!("{:032x}", watch.operation.0)).unwrap_or_default();
        let own = listed.iter().filter(|watch| watch.key.instance == instance.name);
        let operations = own.map(current).collect();
        Ok(Response::new(ListOperationsResponse { operations, next_page_token, ..Default::default() }))
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
