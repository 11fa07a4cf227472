//! What an action leaves behind.

use castwork_proto::reapi::{Directory, DirectoryNode, FileNode, Tree, command};
use prost::Message as _;
use tonic::Code;

use crate::jobs::{Job, stdout};
use crate::support::Server;

#[tokio::test]
async fn outputs_are_what_lies_at_their_paths() {
    // [69]
    let Some(server) = Server::with_a_worker("outputs").await else { return };
    let script = "mkdir -p dir/sub && echo in > dir/sub/file && echo text > file && chmod 755 file && \
        ln -s file link && ln -s nowhere dangling && echo deep > made/for/me && echo ü > ünïcode";
    let paths = ["dangling", "dir", "file", "link", "made/for/me", "not/there", "ünïcode"];
    let result = Job::shell(script).with_outputs(&paths).succeed(&server).await;
    let mut files: Vec<(&str, bool)> =
        result.output_files.iter().map(|file| (file.path.as_str(), file.is_executable)).collect();
    files.sort_unstable();
    assert_eq!(files, [("file", true), ("made/for/me", false), ("ünïcode", false)]);
    let mut links: Vec<(&str, &str)> =
        result.output_symlinks.iter().map(|link| (link.path.as_str(), link.target.as_str())).collect();
    links.sort_unstable();
    assert_eq!(links, [("dangling", "nowhere"), ("link", "file")]);
    let [directory] = &result.output_directories[..] else { panic!("{result:?}") };
    assert_eq!(directory.path, "dir");
    let tree = Tree::decode(server.blob(directory.tree_digest.as_ref().unwrap()).await).unwrap();
    let root = tree.root.unwrap();
    assert_eq!(root.directories[0].name, "sub");
    assert_eq!(tree.children[0].files[0].name, "file");
    assert_eq!(server.blob(tree.children[0].files[0].digest.as_ref().unwrap()).await, "in\n");
}

#[tokio::test]
#[expect(deprecated, reason = "old clients ask like this")]
async fn clients_that_tell_files_from_directories_are_understood() {
    // [69]: the same path may stand in both lists
    let Some(server) = Server::with_a_worker("old outputs").await else { return };
    let mut job = Job::shell("mkdir -p d && echo in > d/f && echo text > f");
    job.command.output_files = vec!["d".to_owned(), "f".to_owned()];
    job.command.output_directories = vec!["d".to_owned(), "f".to_owned()];
    let result = job.succeed(&server).await;
    assert_eq!(result.output_files.len(), 1, "{result:?}");
    assert_eq!(result.output_directories.len(), 1, "{result:?}");
}

#[tokio::test]
async fn a_directory_comes_out_the_same_however_it_was_made() {
    // [70]
    let Some(server) = Server::with_a_worker("directories").await else { return };
    let mut digests = Vec::new();
    for order in ["a b c", "c b a"] {
        let script = format!("for name in {order}; do mkdir -p d/$name d/empty; echo same > d/$name/f; done");
        let mut job = Job::shell(&script).with_outputs(&["d"]);
        job.command.output_directory_format = command::OutputDirectoryFormat::TreeAndDirectory as i32;
        let result = job.succeed(&server).await;
        let [directory] = &result.output_directories[..] else { panic!("{result:?}") };
        let root = directory.root_directory_digest.clone().expect("it was asked for");
        let root = Directory::decode(server.blob(&root).await).unwrap();
        assert_eq!(root.directories.len(), 4);
        digests.push(directory.tree_digest.clone().expect("some clients look at nothing else"));
    }
    assert_eq!(digests[0], digests[1]);
}

#[tokio::test]
async fn a_command_runs_where_it_is_told_with_what_it_is_given() {
    // [72]
    let Some(server) = Server::with_a_worker("working directories").await else { return };
    let script = server.put("#!/bin/sh\necho \"$GREETING from $(basename \"$PWD\")\"\n").await;
    let inner = Directory {
        files: vec![FileNode {
            name: "run".to_owned(),
            digest: Some(script.to_proto()),
            is_executable: true,
            ..Default::default()
        }],
        ..Default::default()
    };
    let inner_digest = server.put(inner.encode_to_vec()).await;
    let node = DirectoryNode { name: "work".to_owned(), digest: Some(inner_digest.to_proto()) };
    let root = Directory { directories: vec![node], ..Default::default() };
    let mut job = Job { root: root.encode_to_vec(), ..Job::shell("") };
    job.command.working_directory = "work".to_owned();
    let variable = |name: &str, value: &str| command::EnvironmentVariable {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    job.command.environment_variables.insert(0, variable("GREETING", "hello"));
    for program in [&["./run"][..], &["sh", "run"], &["/bin/sh", "run"]] {
        job.command.arguments = program.iter().map(|word| (*word).to_owned()).collect();
        let result = job.succeed(&server).await;
        assert_eq!(stdout(&server, &result).await, "hello from work\n", "{program:?}");
    }
    job.command.working_directory = "nowhere".to_owned();
    let code = job.run(&server).await.code();
    assert!(matches!(code, Code::InvalidArgument | Code::FailedPrecondition), "{code:?}");
}

#[tokio::test]
async fn what_is_said_at_length_is_not_in_the_operation() {
    // [73]
    let Some(server) = Server::with_a_worker("long output").await else { return };
    let ended = Job::shell("head -c 9000000 /dev/zero | tr '\\0' x").run(&server).await;
    assert!(ended.bytes < 4 << 20, "{} bytes", ended.bytes);
    let result = ended.response.result.unwrap();
    assert_eq!(result.stdout_digest.unwrap().size_bytes, 9_000_000);
}
