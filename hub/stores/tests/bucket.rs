//! A bucket on a real S3 server: who reads while it is written finds all that a list names.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use bytes::Bytes;
use muster_daemon::Clock;
use muster_e2e::{S3Server, has_part, scratch};
use muster_stores::{
    Access, BucketAccess, BucketAuth, Change, Entry, Files, Secret, StateStore, open,
};

/// How often the placement changes.
const VERSIONS: usize = 12;
/// How many files it has, each time of other names.
const FILES: usize = 24;
const LIST: &str = "dev/.kratix/default-web.yaml";

fn access(endpoint: String) -> BucketAccess {
    BucketAccess {
        bucket: "pail".into(),
        endpoint,
        insecure: true,
        dual_stack: false,
        auth: BucketAuth::Key { id: S3Server::ID.into(), secret: Secret::new(S3Server::SECRET) },
        authorities: None,
        secret: "default/pail".into(),
    }
}

fn opened(access: BucketAccess) -> Box<dyn StateStore> {
    open(Access::Bucket(access), &std::env::temp_dir(), &Clock::default()).unwrap()
}

fn version(n: usize, files: usize) -> Entry {
    let files = (0..files).map(|i| {
        let text = format!("of version {n}");
        (format!("dev/{n:03}-{i:03}.yaml"), Bytes::from(text))
    });
    let change = Change::Listed {
        list: LIST.into(),
        root: "dev".into(),
        relative_to: String::new(),
        files: files.collect::<Files>(),
        before: Vec::new(),
    };
    Entry { owner: "web".into(), change }
}

/// The files of the newest version that the list names, if it names any.
fn newest(server: &S3Server) -> Vec<String> {
    let listed = server.read("pail", LIST).unwrap_or_default();
    let listed = String::from_utf8(listed).unwrap();
    let paths = listed.lines().filter_map(|line| line.strip_prefix("- "));
    let mut paths: Vec<_> = paths.map(str::to_owned).collect();
    let version = |path: &str| path.split('-').next().map(str::to_owned);
    let last = paths.iter().filter_map(|path| version(path)).max();
    paths.retain(|path| version(path) == last);
    paths
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_finds_all_that_the_list_names() {
    if !has_part("MUSTER_S3_SERVER") {
        return;
    }
    let scratch = scratch();
    let server = S3Server::start(scratch.path());
    server.create("pail");
    let store = opened(access(server.endpoint()));
    let ended = AtomicBool::new(false);
    let looks = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut looks = 0;
            while !ended.load(Ordering::Relaxed) {
                let named = newest(&server);
                let missing: Vec<_> =
                    named.iter().filter(|path| server.read("pail", path).is_none()).collect();
                // A list that is another one by now named files that may have gone rightly.
                if newest(&server) == named {
                    assert!(missing.is_empty(), "listed and not there: {missing:?}");
                    assert!(named.is_empty() || named.len() == FILES, "half: {named:?}");
                    looks += usize::from(!named.is_empty());
                }
            }
            looks
        });
        let runtime = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| {
            runtime.block_on(async {
                for n in 0..VERSIONS {
                    let written = store.write(&[version(n, FILES)]).await.unwrap();
                    assert!(written.changed && written.requests >= FILES, "{written:?}");
                    // Those of before are gone when the write is done.
                    let left = server.keys("pail");
                    assert_eq!(left.len(), FILES + 1, "{left:?}");
                }
            });
        });
        ended.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    println!("{looks} looks at {VERSIONS} versions of {FILES} files");
    assert!(looks > 0, "nobody looked");
    let again = store.write(&[version(VERSIONS - 1, FILES)]).await.unwrap();
    assert!(!again.changed && again.requests == 0, "{again:?}");
    store.write(&[version(0, 0)]).await.unwrap();
    assert!(server.keys("pail").is_empty());
}

#[tokio::test]
async fn a_server_that_says_nothing_is_told_as_away() {
    // Connections are made, by the kernel, and nobody takes them.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let store = opened(access(endpoint.clone()));
    let told = store.probe().await.unwrap_err();
    assert_eq!(told.reason, "StoreUnreachable");
    assert!(told.message.starts_with(&format!("{endpoint} does not answer")), "{told}");
}

#[tokio::test]
async fn a_certificate_counts_only_if_its_authority_is_trusted() {
    if !has_part("MUSTER_S3_SERVER") {
        return;
    }
    let (scratch, elsewhere) = (scratch(), scratch());
    let (server, authority) = S3Server::start_secure(scratch.path());
    let (_, other) = S3Server::start_secure(elsewhere.path());
    server.create("pail");
    let with = |authorities: Option<&Vec<u8>>| {
        let authorities = authorities.cloned();
        opened(BucketAccess { insecure: false, authorities, ..access(server.endpoint()) })
    };
    for wrong in [None, Some(&other)] {
        let told = with(wrong).probe().await.unwrap_err();
        assert_eq!(told.reason, "CertificateNotTrusted", "{told}");
        assert!(told.message.contains("caFile of Secret default/pail"), "{told}");
    }
    let store = with(Some(&authority));
    store.probe().await.unwrap();
    assert!(store.write(&[version(0, 1)]).await.unwrap().changed);
    assert_eq!(server.tree("pail").len(), 2);
}
