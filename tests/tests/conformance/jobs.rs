//! Actions that a server is to run.

use castwork_cas::Digest;
use castwork_proto::longrunning::operations_client::OperationsClient;
use castwork_proto::longrunning::{Operation, operation};
use castwork_proto::reapi::execution_client::ExecutionClient;
use castwork_proto::reapi::platform::Property;
use castwork_proto::reapi::{
    Action, ActionResult, Command, ExecuteRequest, ExecuteResponse, Platform, WaitExecutionRequest, command,
};
use prost::Message as _;
use tonic::codec::Streaming;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::{self, SHA256, Server};

/// An action, as it is put together.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) command: Command,
    pub(crate) action: Action,
    /// Uploaded and then named as the input root, unless the action names one.
    pub(crate) root: Vec<u8>,
}

impl Job {
    /// Runs a script of the shell, in no test but this one.
    pub(crate) fn shell(script: &str) -> Self {
        let arguments = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let variable =
            |name: &str, value: String| command::EnvironmentVariable { name: name.to_owned(), value };
        let path = variable("PATH", "/usr/bin:/bin".to_owned());
        let environment_variables = vec![path, variable("SALT", support::salt())];
        let properties = vec![Property { name: "OSFamily".to_owned(), value: "linux".to_owned() }];
        let platform = Some(Platform { properties });
        #[expect(deprecated, reason = "old servers look here")]
        let command =
            Command { arguments, environment_variables, platform: platform.clone(), ..Command::default() };
        Self { command, action: Action { platform, ..Action::default() }, root: Vec::new() }
    }

    /// The same, with output paths.
    pub(crate) fn with_outputs(mut self, paths: &[&str]) -> Self {
        self.command.output_paths = paths.iter().map(|path| (*path).to_owned()).collect();
        self
    }

    /// The messages, the last of which is the action.
    pub(crate) fn blobs(&self) -> [Vec<u8>; 3] {
        let command = self.command.encode_to_vec();
        let digest = |data: &[u8]| Some(Digest::of(SHA256, data).to_proto());
        let mut action = self.action.clone();
        action.command_digest = action.command_digest.or_else(|| digest(&command));
        action.input_root_digest = action.input_root_digest.or_else(|| digest(&self.root));
        [self.root.clone(), command, action.encode_to_vec()]
    }

    pub(crate) async fn upload(&self, server: &Server) -> Digest {
        let mut last = Digest::empty(SHA256);
        for blob in self.blobs() {
            last = server.put(blob).await;
        }
        last
    }

    /// Uploads everything, and runs it to its end.
    pub(crate) async fn run(&self, server: &Server) -> Ended {
        let action = self.upload(server).await;
        execute(server, &action, |_| ()).await.unwrap().end().await
    }

    /// As [`Job::run`]; it has to end well.
    pub(crate) async fn succeed(&self, server: &Server) -> ActionResult {
        let ended = self.run(server).await;
        assert_eq!(ended.code(), Code::Ok, "{:?}", ended.response);
        ended.response.result.unwrap()
    }
}

/// Asks for an action to be run.
pub(crate) async fn execute(
    server: &Server,
    action: &Digest,
    change: impl FnOnce(&mut ExecuteRequest),
) -> Result<Running, Status> {
    let mut request = ExecuteRequest { action_digest: Some(action.to_proto()), ..Default::default() };
    change(&mut request);
    let mut client = ExecutionClient::new(server.channel.clone());
    let mut stream = client.execute(request).await?.into_inner();
    let first = stream.message().await?.expect("an operation at once");
    Ok(Running { name: first.name.clone(), last: first, stream })
}

/// Goes on waiting for an operation.
pub(crate) async fn wait(server: &Server, name: &str) -> Result<Running, Status> {
    let mut client = ExecutionClient::new(server.channel.clone());
    let mut stream =
        client.wait_execution(WaitExecutionRequest { name: name.to_owned() }).await?.into_inner();
    let first = stream.message().await?.expect("an operation at once");
    Ok(Running { name: first.name.clone(), last: first, stream })
}

pub(crate) fn operations(server: &Server) -> OperationsClient<Channel> {
    OperationsClient::new(server.channel.clone())
}

/// An operation that somebody waits for.
pub(crate) struct Running {
    pub(crate) name: String,
    last: Operation,
    stream: Streaming<Operation>,
}

impl Running {
    /// Waits for its end.
    pub(crate) async fn end(mut self) -> Ended {
        while !self.last.done {
            self.last = self.stream.message().await.unwrap().expect("no end before the operation is done");
            assert_eq!(self.last.name, self.name);
        }
        Ended::of(&self.last)
    }
}

/// How an operation ended.
pub(crate) struct Ended {
    pub(crate) response: ExecuteResponse,
    pub(crate) bytes: usize,
}

impl Ended {
    pub(crate) fn of(operation: &Operation) -> Self {
        let Some(operation::Result::Response(response)) = &operation.result else {
            panic!("an operation ends in a response: {operation:?}")
        };
        assert_eq!(response.type_url, "type.googleapis.com/build.bazel.remote.execution.v2.ExecuteResponse");
        Self { response: response.to_msg().unwrap(), bytes: operation.encoded_len() }
    }

    pub(crate) fn code(&self) -> Code {
        Code::from(self.response.status.as_ref().map_or(0, |status| status.code))
    }

    pub(crate) fn message(&self) -> &str {
        self.response.status.as_ref().map_or("", |status| &status.message)
    }
}

/// What an action wrote to stdout.
pub(crate) async fn stdout(server: &Server, result: &ActionResult) -> String {
    let bytes = match &result.stdout_digest {
        Some(digest) if result.stdout_raw.is_empty() => server.blob(digest).await,
        _ => result.stdout_raw.clone(),
    };
    String::from_utf8(bytes.to_vec()).unwrap()
}
