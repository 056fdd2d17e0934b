//! What is kept and how it leaves and comes back: quota, finished Jobs, encrypted Secrets, backups.

#[path = "shared/home.rs"]
mod home;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use http_body_util::BodyExt as _;
use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{ConfigMap, Secret},
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    },
    serde::de::DeserializeOwned,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams, WatchParams},
};
use muster_apiserver::{
    ApiServer, BackupPlan, Config, EncryptionKey, Storage, UserInfo, check, restore,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use home::{config_map, reason, until};

const BACKUP: &str = "/lab/backup";

fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

async fn open(root: &Path, storage: Storage) -> ApiServer {
    let mut config = Config::new(root.join("api"));
    config.storage = storage;
    ApiServer::open(config).await.unwrap()
}

fn client(api: &ApiServer) -> Client {
    Client::new(api.service(UserInfo::admin()), "default")
}

fn maps(api: &ApiServer) -> Api<ConfigMap> {
    Api::default_namespaced(client(api))
}

#[tokio::test]
async fn the_quota_is_told_with_its_use_and_cure() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage { quota_bytes: 200_000, ..Storage::default() };
    let api = open(dir.path(), storage).await;
    let maps = maps(&api);
    let large = |name: &str| config_map(name, &"x".repeat(60_000));
    let mut refused = None;
    for count in 0..4 {
        match maps.create(&PostParams::default(), &large(&format!("m{count}"))).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) => refused = refused.or(Some(status)),
            Err(error) => panic!("{error}"),
        }
    }
    let refused = refused.expect("four of them are beyond the quota");
    assert_eq!((refused.code, refused.reason.as_str()), (507, "InsufficientStorage"));
    for part in ["200000", "delete some", "larger quota"] {
        assert!(refused.message.contains(part), "{}", refused.message);
    }
    maps.delete("m0", &Default::default()).await.unwrap();
    maps.create(&PostParams::default(), &large("again")).await.unwrap();
}

async fn finish(jobs: &Api<Job>, name: &str, ttl: Option<i32>, at: &str) {
    let job = from(json!({
        "metadata": {"name": name},
        "spec": {"ttlSecondsAfterFinished": ttl, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}],
        }}},
    }));
    jobs.create(&PostParams::default(), &job).await.unwrap();
    let conditions = json!([
        {"type": "SuccessCriteriaMet", "status": "True", "lastTransitionTime": at},
        {"type": "Complete", "status": "True", "lastTransitionTime": at},
    ]);
    let status = json!({"status": {
        "conditions": conditions, "startTime": at, "completionTime": at, "succeeded": 1,
    }});
    jobs.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

#[tokio::test]
async fn finished_jobs_go_when_their_time_has_come() {
    let dir = tempfile::tempdir().unwrap();
    let keep_jobs = Some(Duration::from_secs(24 * 3600));
    let api = open(dir.path(), Storage { keep_jobs, ..Storage::default() }).await;
    let jobs: Api<Job> = Api::default_namespaced(client(&api));
    let (old, now) = ("2025-01-01T00:00:00Z", jiff::Timestamp::now().to_string());
    finish(&jobs, "kept", None, &now).await;
    finish(&jobs, "kept-by-itself", Some(i32::MAX), old).await;
    finish(&jobs, "at-once", Some(0), &now).await;
    finish(&jobs, "old", None, old).await;
    let names = async || {
        let all = jobs.list(&ListParams::default()).await.unwrap();
        all.items.iter().map(|job| job.name_any()).collect::<Vec<_>>()
    };
    until("old Jobs are gone", async || names().await == ["kept", "kept-by-itself"]).await;
    api.close().await;
    // A server that keeps them for less finds them at its start.
    let keep_jobs = Some(Duration::ZERO);
    let api = open(dir.path(), Storage { keep_jobs, ..Storage::default() }).await;
    let jobs: Api<Job> = Api::default_namespaced(client(&api));
    until("what is kept no longer is gone", async || {
        let all = jobs.list(&ListParams::default()).await.unwrap();
        all.items.iter().map(|job| job.name_any()).collect::<Vec<_>>() == ["kept-by-itself"]
    })
    .await;
}

fn key(dir: &Path) -> Vec<EncryptionKey> {
    let path = dir.join("key");
    fs::write(&path, [5; 32]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    vec![EncryptionKey::read(&path).unwrap()]
}

fn hand_out(api: &ApiServer, root: &Path) {
    fs::create_dir_all(root.join("more")).unwrap();
    fs::write(root.join("more/file"), "beside it").unwrap();
    api.hand_out_backups(BackupPlan {
        path: BACKUP.to_owned(),
        root: root.to_owned(),
        api_dir: "api".into(),
        files: vec!["more/file".into()],
    });
}

/// Takes a backup as that user: the status, and the bytes.
async fn take(api: &ApiServer, user: UserInfo) -> (u16, Vec<u8>) {
    let request = http::Request::get(BACKUP).body(http_body_util::Empty::new()).unwrap();
    let response = api.service(user).oneshot(request).await.unwrap();
    let code = response.status().as_u16();
    (code, response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

fn user(name: &str) -> UserInfo {
    let json = UserInfo::service_account("default", name);
    UserInfo { name: name.to_owned(), ..json }
}

#[tokio::test]
async fn a_backup_is_for_those_whom_rbac_allows_it() {
    let dir = tempfile::tempdir().unwrap();
    let api = open(dir.path(), Storage::default()).await;
    hand_out(&api, dir.path());
    let (code, body) = take(&api, user("jane")).await;
    assert_eq!(code, 403);
    let told = String::from_utf8(body).unwrap();
    assert!(told.contains("jane") && told.contains(BACKUP), "{told}");
    let role: ClusterRole = from(json!({
        "metadata": {"name": "backup"},
        "rules": [{"nonResourceURLs": [BACKUP], "verbs": ["get"]}],
    }));
    let binding: ClusterRoleBinding = from(json!({
        "metadata": {"name": "backup"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "backup"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
    }));
    Api::all(client(&api)).create(&PostParams::default(), &role).await.unwrap();
    Api::all(client(&api)).create(&PostParams::default(), &binding).await.unwrap();
    assert_eq!(take(&api, user("jane")).await.0, 200);
    assert_eq!(take(&api, user("joe")).await.0, 403);
}

#[tokio::test]
async fn a_backup_while_writes_go_on_is_one_moment_and_comes_back_whole() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let keys = key(elsewhere.path());
    let storage = || Storage { keys: keys.clone(), ..Storage::default() };
    let api = open(dir.path(), storage()).await;
    hand_out(&api, dir.path());
    let secrets: Api<Secret> = Api::default_namespaced(client(&api));
    let secret: Secret =
        from(json!({"metadata": {"name": "s"}, "stringData": {"key": "plain-text-of-s"}}));
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    let ca = api.ca_pem().to_owned();

    // Pairs that are written one after the other: a moment has at most one half of one pair.
    let writing = tokio::spawn({
        let maps = maps(&api);
        async move {
            for count in 0..400 {
                for half in ["a", "b"] {
                    let map = config_map(&format!("p{count:04}-{half}"), half);
                    maps.create(&PostParams::default(), &map).await.unwrap();
                }
            }
        }
    });
    let names = async |api: &ApiServer| {
        let all = maps(api).list(&ListParams::default()).await.unwrap();
        let names = all.items.into_iter().map(|map| map.name_any());
        let names = names.filter(|name| name.starts_with('p')).collect::<Vec<_>>();
        (names, all.metadata.resource_version.unwrap())
    };
    until("some are written", async || names(&api).await.0.len() > 50).await;
    let before = names(&api).await.0;
    let (code, bytes) = take(&api, UserInfo::admin()).await;
    assert_eq!(code, 200);
    writing.await.unwrap();
    let (all, last) = names(&api).await;

    let file = elsewhere.path().join("backup");
    fs::write(&file, &bytes).unwrap();
    assert!(!bytes.windows(15).any(|window| window == b"plain-text-of-s"), "it stays encrypted");
    let summary = check(&file).unwrap();
    assert_eq!(summary.bytes, bytes.len() as u64);
    let root = elsewhere.path().join("root");
    fs::create_dir(&root).unwrap();
    assert_eq!(restore(&file, &root).unwrap(), summary);
    assert_eq!(fs::read_to_string(root.join("more/file")).unwrap(), "beside it");
    assert!(restore(&file, &root).is_err(), "it replaces nothing");
    for entry in fs::read_dir(root.join("api/pki")).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    let restored = open(&root, storage()).await;
    assert_eq!(restored.ca_pem(), ca, "clients know it again");
    let (found, version) = names(&restored).await;
    assert!(found.len() >= before.len(), "{} of {}", found.len(), before.len());
    assert_eq!(found, all[..found.len()], "one moment, with all before it and nothing after");
    let again: Api<Secret> = Api::default_namespaced(client(&restored));
    let data = again.get("s").await.unwrap().data.unwrap();
    assert_eq!(data["key"].0, b"plain-text-of-s");
    let number = |text: &str| text.parse::<u64>().unwrap();
    assert!(number(&version) > number(&last), "no revision is given out twice");
    // Who followed the lost server starts anew instead of missing what was lost.
    let watch = maps(&restored).watch(&WatchParams::default(), &last).await;
    let expired = match watch {
        Err(error) => reason(error),
        Ok(events) => {
            use futures::StreamExt as _;
            match Box::pin(events).next().await.unwrap().unwrap() {
                kube::api::WatchEvent::Error(status) => status.reason,
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(expired, "Expired");
}

#[tokio::test]
async fn a_damaged_backup_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let api = open(dir.path(), Storage::default()).await;
    hand_out(&api, dir.path());
    let (_, mut bytes) = take(&api, UserInfo::admin()).await;
    let (file, root) = (dir.path().join("backup"), dir.path().join("root"));
    fs::create_dir(&root).unwrap();
    let cut = bytes.len() - 1;
    fs::write(&file, &bytes[..cut]).unwrap();
    assert!(restore(&file, &root).unwrap_err().to_string().contains("ends too early"));
    bytes[cut / 2] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let error = restore(&file, &root).unwrap_err().to_string();
    assert!(error.contains("damaged"), "{error}");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
}
