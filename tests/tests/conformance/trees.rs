//! `GetTree`.

use castwork_cas::Digest;
use castwork_proto::reapi::{self, Directory, DirectoryNode, GetTreeRequest};
use prost::Message as _;
use tonic::{Code, Status};

use crate::support::{SHA256, Server, UNSET, item};

fn directory(children: &[(&str, Digest)]) -> Directory {
    let node = |(name, digest): &(&str, Digest)| DirectoryNode {
        name: (*name).to_owned(),
        digest: Some(digest.to_proto()),
    };
    Directory { directories: children.iter().map(node).collect(), ..Default::default() }
}

async fn put(server: &Server, directory: &Directory) -> Digest {
    server.put(directory.encode_to_vec()).await
}

/// The pages: directories and the token of the next.
async fn pages(
    server: &Server,
    root: &Digest,
    page_size: i32,
    token: &str,
) -> Result<Vec<(Vec<Directory>, String)>, Status> {
    let request = GetTreeRequest {
        root_digest: Some(root.to_proto()),
        page_size,
        page_token: token.to_owned(),
        ..Default::default()
    };
    let mut stream = server.cas().get_tree(request).await?.into_inner();
    let mut pages = Vec::new();
    while let Some(page) = stream.message().await? {
        pages.push((page.directories, page.next_page_token));
    }
    Ok(pages)
}

async fn all(server: &Server, root: &Digest) -> Result<Vec<Directory>, Status> {
    Ok(pages(server, root, 0, "").await?.into_iter().flat_map(|(directories, _)| directories).collect())
}

#[tokio::test]
async fn each_directory_comes_once_and_what_is_missing_is_left_out() {
    // [27]
    let server = Server::start().await;
    let empty = Digest::empty(SHA256);
    let shared = directory(&[("x", empty)]);
    let shared_digest = put(&server, &shared).await;
    let gone = Digest::of(SHA256, b"gone");
    let root = directory(&[("a", shared_digest), ("b", shared_digest), ("c", gone)]);
    let root_digest = put(&server, &root).await;
    assert_eq!(all(&server, &root_digest).await.unwrap(), [root, shared, Directory::default()]);
    assert_eq!(all(&server, &empty).await.unwrap(), [Directory::default()]);
    assert_eq!(all(&server, &gone).await.unwrap_err().code(), Code::NotFound);
    let no_directory = server.put(vec![0xff; 9]).await;
    assert_eq!(all(&server, &no_directory).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_tree_can_be_gone_on_with_from_every_page() {
    // [28]
    let server = Server::start().await;
    let mut children = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let leaf = put(&server, &directory(&[(name, Digest::empty(SHA256))])).await;
        children.push((name, put(&server, &directory(&[("leaf", leaf)])).await));
    }
    let root = put(&server, &directory(&children)).await;
    let whole = all(&server, &root).await.unwrap();
    assert_eq!(whole.len(), 10);
    let pages_of_one = pages(&server, &root, 1, "").await.unwrap();
    assert_eq!(pages_of_one.len(), 10);
    for (index, (_, token)) in pages_of_one.iter().enumerate() {
        if token.is_empty() {
            assert_eq!(index, 9);
            continue;
        }
        let rest = pages(&server, &root, 3, token).await.unwrap();
        let rest: Vec<Directory> = rest.into_iter().flat_map(|(directories, _)| directories).collect();
        assert_eq!(rest, whole[index + 1..]);
    }
    for (page_size, token) in [(-1, ""), (0, "bogus"), (0, "99999-x")] {
        let status = pages(&server, &root, page_size, token).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{page_size} {token}");
    }
    let beyond = pages_of_one[0].1.replacen('1', "11", 1);
    assert_eq!(pages(&server, &root, 0, &beyond).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_bomb_of_a_tree_is_as_small_as_its_directories() {
    // [29]: 2^30 paths
    let server = Server::start().await;
    let mut digest = Digest::empty(SHA256);
    for _ in 0..30 {
        digest = put(&server, &directory(&[("a", digest), ("b", digest)])).await;
    }
    assert_eq!(all(&server, &digest).await.unwrap().len(), 31);
}

#[tokio::test]
async fn a_deep_tree_comes_whole() {
    // [29]
    const DEPTH: usize = 3_000;
    let server = Server::start().await;
    let mut digest = Digest::empty(SHA256);
    let mut items: Vec<reapi::batch_update_blobs_request::Request> = Vec::new();
    for _ in 0..DEPTH {
        let data = directory(&[("d", digest)]).encode_to_vec();
        digest = Digest::of(SHA256, &data);
        items.push(item(&digest, data.into()));
    }
    assert_eq!(server.update(UNSET, items).await.unwrap(), [0; DEPTH]);
    assert_eq!(all(&server, &digest).await.unwrap().len(), DEPTH + 1);
}
