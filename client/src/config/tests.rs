use super::*;

fn load(file: &str, variables: &[(&str, &str)]) -> Result<Config, Wrong> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, file).unwrap();
    let flags = BTreeMap::from([("config".to_owned(), path.to_str().unwrap().to_owned())]);
    Config::load(&flags, |name| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    })
}

#[test]
fn variables_win_over_the_file_and_the_file_over_defaults() {
    let config =
        load("max_size = \"1GB\"\ndir = \"/a\"\n", &[("CASTWORK_DIR", "/b"), ("HOME", "/home/me")]).unwrap();
    assert_eq!(config.dir, Path::new("/b"));
    assert_eq!(config.max_size_bytes, 1_000_000_000);
    assert_eq!(config.origins["dir"].1, Origin::Variable("CASTWORK_DIR"));
    assert!(matches!(config.origins["max_size"].1, Origin::File(_)));
    assert_eq!(load("", &[("HOME", "/home/me")]).unwrap().dir, Path::new("/home/me/.cache/castwork"));
}

#[test]
fn every_complaint_comes_at_once_with_its_key_and_place() {
    let complaints =
        load("max_size = \"many\"\ncolour = 3\nremote = [\"ftp://x\", \"grpc://h\"]\nlog = true\n", &[])
            .unwrap_err();
    let texts: Vec<_> = complaints.complaints.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 5, "{texts:#?}");
    for (key, what) in [
        ("max_size", "no size"),
        ("colour", "is not known"),
        ("remote", "ftp://x"),
        ("remote", "without a port"),
        ("log", "text"),
    ] {
        let is_there = |text: &String| {
            text.contains(&format!("`{key}`")) && text.contains(what) && text.contains("config.toml")
        };
        assert!(texts.iter().any(is_there), "{key}: {texts:#?}");
    }
}

#[test]
fn remotes_are_read_in_order_with_their_modes() {
    let config =
        load("remote = \"grpc://h:1/main/x?mode=ro, file:///srv/cache,grpc://[::1]:2\"", &[]).unwrap();
    let server = |address: &str, instance: &str| Address::Server {
        address: address.to_owned(),
        instance: instance.to_owned(),
    };
    assert_eq!(
        config.remotes[0],
        RemoteEntry { address: server("grpc://h:1", "main/x"), is_read_only: true }
    );
    assert_eq!(
        config.remotes[1],
        RemoteEntry { address: Address::Folder("/srv/cache".into()), is_read_only: false }
    );
    assert_eq!(config.remotes[2], RemoteEntry { address: server("grpc://[::1]:2", ""), is_read_only: false });
}

#[test]
fn object_stores_keep_their_options_and_lose_the_mode() {
    let config =
        load("remote = \"s3://b/p?endpoint=http://h:1&mode=ro&region=x,redis://:pw@h/1\"", &[]).unwrap();
    let objects =
        |url: &str, is_read_only| RemoteEntry { address: Address::Objects(url.to_owned()), is_read_only };
    assert_eq!(
        config.remotes,
        [objects("s3://b/p?endpoint=http://h:1&region=x", true), objects("redis://:pw@h/1", false)]
    );
    assert!(load("remote = \"s3://b?mode=no\"", &[]).is_err());
}

#[test]
fn passwords_are_not_shown() {
    for (remotes, shown) in [
        ("redis://us:pw@h:1/2/p?ttl_days=1, grpc://h:1", "redis://us:…@h:1/2/p?ttl_days=1, grpc://h:1"),
        ("webdav+https://u:p@h/a,redis://:p%40@h", "webdav+https://u:…@h/a,redis://:…@h"),
        ("rediss://:ab/cd=@h/1", "rediss://:…@h/1"),
        ("webdavs://u:p@h, https://u:p@h", "webdavs://u:…@h, https://u:…@h"),
        ("s3://b/p?endpoint=http://h:1", "s3://b/p?endpoint=http://h:1"),
        ("", ""),
    ] {
        assert_eq!(without_passwords(remotes), shown);
    }
}

#[test]
fn sizes_have_decimal_and_binary_units() {
    assert_eq!(read_size("5GB"), Some(5_000_000_000));
    assert_eq!(read_size("512 MiB"), Some(512 << 20));
    assert_eq!(read_size("17"), Some(17));
    for wrong in ["", "GB", "-1", "5XB", "99999999999TB"] {
        assert_eq!(read_size(wrong), None, "{wrong}");
    }
}
