//! Compares generated code with generated code: theirs as their crate ships it, ours as the same generator
//! makes it from our `.proto` files with their settings. What counts is reduced to facts first, so that
//! comments and the generator's version do not matter.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use prost_types::FileDescriptorSet;
use quote::ToTokens;
use syn::{Attribute, ImplItem, Item, ItemEnum, ItemImpl, ItemStruct};

/// Generated files that the crate and we have in common.
const SHARED: [&str; 5] = [
    "build.bazel.remote.execution.v2.rs",
    "build.bazel.semver.rs",
    "google.bytestream.rs",
    "google.longrunning.rs",
    "google.rpc.rs",
];
const OURS: [&str; 5] = [
    "build/bazel/remote/execution/v2/remote_execution.proto",
    "build/bazel/semver/semver.proto",
    "google/bytestream/bytestream.proto",
    "google/longrunning/operations.proto",
    "google/rpc/status.proto",
];

#[test]
fn every_message_field_enum_and_method_is_the_standards() {
    let theirs = generated_folder_of("bazel-remote-apis");
    let ours = tempfile::tempdir().expect("a temporary folder");
    generate(our_descriptors(), ours.path());
    for name in SHARED {
        let (ours, theirs) = (facts_of(&ours.path().join(name)), facts_of(&theirs.join(name)));
        let only_ours: Vec<_> = ours.difference(&theirs).collect();
        let only_theirs: Vec<_> = theirs.difference(&ours).collect();
        assert!(
            only_ours.is_empty() && only_theirs.is_empty(),
            "{name}: only ours: {only_ours:#?}, only theirs: {only_theirs:#?}"
        );
    }
}

#[test]
fn there_are_facts_to_compare() {
    let theirs = generated_folder_of("bazel-remote-apis");
    let count = |name: &str, needle: &str| {
        facts_of(&theirs.join(name)).iter().filter(|fact| fact.starts_with(needle)).count()
    };
    let reapi = "build.bazel.remote.execution.v2.rs";
    assert!(count(reapi, "field") > 200, "fields");
    assert_eq!(count(reapi, "value"), 29);
    assert_eq!(count(reapi, "method"), 13);
    assert_eq!(count("google.bytestream.rs", "method"), 3);
    assert_eq!(count("google.longrunning.rs", "method"), 5);
}

#[test]
fn a_changed_number_type_name_or_method_is_noticed() {
    let facts = |change: fn(&mut FileDescriptorSet)| {
        let mut descriptors = our_descriptors();
        change(&mut descriptors);
        let folder = tempfile::tempdir().expect("a temporary folder");
        generate(descriptors, folder.path());
        facts_of(&folder.path().join("build.bazel.remote.execution.v2.rs"))
    };
    let original = facts(|_| {});
    let changes: [fn(&mut FileDescriptorSet); 6] = [
        |set| field(set, "Action", "salt").number = Some(11),
        |set| field(set, "Digest", "size_bytes").r#type = Some(13),
        |set| field(set, "Tree", "children").name = Some("child".into()),
        |set| field(set, "Command", "arguments").label = Some(1),
        |set| reapi(set).service[0].method[1].name = Some("Await".into()),
        |set| reapi(set).service[2].method[3].server_streaming = None,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert_ne!(facts(change), original, "change {number}");
    }
}

fn reapi(set: &mut FileDescriptorSet) -> &mut prost_types::FileDescriptorProto {
    let package = Some("build.bazel.remote.execution.v2");
    set.file.iter_mut().find(|file| file.package.as_deref() == package).expect("the REAPI file")
}

fn field<'a>(
    set: &'a mut FileDescriptorSet,
    message: &str,
    field: &str,
) -> &'a mut prost_types::FieldDescriptorProto {
    let message = reapi(set).message_type.iter_mut().find(|found| found.name.as_deref() == Some(message));
    let mut fields = message.expect("the message").field.iter_mut();
    fields.find(|found| found.name.as_deref() == Some(field)).expect("the field")
}

fn our_descriptors() -> FileDescriptorSet {
    let api = Path::new(env!("CARGO_MANIFEST_DIR")).join("api");
    protox::compile(OURS, [api]).expect("the .proto files compile")
}

/// Generates with the settings of `bazel-remote-apis`, which are the defaults but for the well-known types.
fn generate(descriptors: FileDescriptorSet, out: &Path) {
    tonic_prost_build::configure()
        .out_dir(out)
        .compile_well_known_types(true)
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)
        .expect("code for the descriptors");
}

/// Asks cargo where the source of a dependency lies; works without a network, and with vendored sources.
fn generated_folder_of(package: &str) -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let mut packages = metadata["packages"].as_array().expect("a list of packages").iter();
    let found = packages.find(|found| found["name"] == package).expect("the package is a dependency");
    let manifest = Path::new(found["manifest_path"].as_str().expect("a path"));
    manifest.with_file_name("src").join("generated")
}

fn facts_of(file: &Path) -> BTreeSet<String> {
    let code = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let file = syn::parse_file(&code).expect("generated code is Rust");
    let mut facts = BTreeSet::new();
    collect(&file.items, "", &mut facts);
    facts
}

fn collect(items: &[Item], path: &str, facts: &mut BTreeSet<String>) {
    for item in items {
        match item {
            Item::Mod(module) => {
                let inner = module.content.as_ref().map_or(&[][..], |(_, items)| items);
                collect(inner, &format!("{path}{}::", module.ident), facts);
            }
            Item::Struct(message) => of_message(message, path, facts),
            Item::Enum(choice) => of_enum(choice, path, facts),
            Item::Impl(block) => of_impl(block, path, facts),
            _ => {}
        }
    }
}

fn of_message(message: &ItemStruct, path: &str, facts: &mut BTreeSet<String>) {
    let wire =
        message.fields.iter().any(|field| field.attrs.iter().any(|attr| attr.path().is_ident("prost")));
    if path.ends_with("_client::") || path.ends_with("_server::") {
        return;
    }
    facts.insert(format!("message {path}{} {}", message.ident, if wire { "with fields" } else { "empty" }));
    for field in &message.fields {
        let (name, kind) = (field.ident.to_token_stream(), field.ty.to_token_stream());
        facts.insert(format!("field {path}{}.{name}: {kind} {}", message.ident, attributes(&field.attrs)));
    }
}

/// Of a oneof or an enum of numbers; generated code has no other kind.
fn of_enum(choice: &ItemEnum, path: &str, facts: &mut BTreeSet<String>) {
    for variant in &choice.variants {
        let shown = variant.to_token_stream().to_string();
        let number = variant.discriminant.as_ref().map(|(_, number)| number.to_token_stream().to_string());
        let kind = variant.fields.to_token_stream();
        assert!(number.is_some() || !variant.fields.is_empty(), "neither number nor message: {shown}");
        facts.insert(format!(
            "value {path}{}.{}{kind} = {} {}",
            choice.ident,
            variant.ident,
            number.unwrap_or_default(),
            attributes(&variant.attrs)
        ));
    }
}

/// The names of enum values as on the wire's text side, and the methods of a client.
fn of_impl(block: &ItemImpl, path: &str, facts: &mut BTreeSet<String>) {
    if block.trait_.is_some() {
        return;
    }
    let of = block.self_ty.to_token_stream();
    for item in &block.items {
        let ImplItem::Fn(function) = item else { continue };
        if function.sig.ident == "as_str_name" {
            facts.insert(format!("names {path}{of}: {}", function.block.to_token_stream()));
        }
        if let Some(route) = route(&function.block.to_token_stream().to_string()) {
            let (inputs, output) = (&function.sig.inputs, &function.sig.output);
            facts.insert(format!(
                "method {route} {} -> {}",
                inputs.to_token_stream(),
                output.to_token_stream()
            ));
        }
    }
}

/// The first literal that looks like a gRPC path, if there is one.
fn route(code: &str) -> Option<&str> {
    let mut literals = code.split('"').skip(1).step_by(2);
    literals.find(|literal| literal.starts_with('/'))
}

/// All attributes but comments, without the blanks in which generators differ.
fn attributes(attributes: &[Attribute]) -> String {
    let shown = attributes.iter().filter(|attribute| !attribute.path().is_ident("doc"));
    shown.map(|attribute| attribute.to_token_stream().to_string().replace(' ', "")).collect()
}
