//! Terraform modules that need no provider but the built-in one.
//!
//! The program is `MUSTER_TERRAFORM`, or found on `PATH`; in CI its absence is an error.

use std::{fs, path::PathBuf};

use muster_appliers::Policy;
use muster_core::{Health, Intent, Outcome};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::scene::{Scene, key, order, until};

async fn scene(appliers: &[&str]) -> Option<Scene> {
    let program = std::env::var_os("MUSTER_TERRAFORM").map(PathBuf::from);
    let found = program.clone().or_else(|| {
        let path = std::env::var_os("PATH")?;
        let names = ["terraform", "tofu"];
        std::env::split_paths(&path)
            .flat_map(|dir| names.map(|name| dir.join(name)))
            .find(|file| file.is_file())
    });
    let Some(found) = found else {
        assert!(std::env::var_os("CI").is_none(), "CI needs terraform: set MUSTER_TERRAFORM");
        eprintln!("skipped: there is no terraform or tofu on this machine");
        return None;
    };
    let mut policy = Policy::enabling(appliers.iter().copied()).unwrap();
    policy.appliers.terraform.as_mut().unwrap().program = Some(found);
    Some(Scene::new(policy).await)
}

fn state(scene: &Scene) -> Value {
    let dir = fs::read_dir(scene.path("terraform")).unwrap().next().unwrap().unwrap().path();
    serde_json::from_slice(&fs::read(dir.join("state/terraform.tfstate")).unwrap()).unwrap()
}

fn id(state: &Value, name: &str) -> Option<String> {
    let resource = state["resources"].as_array()?.iter().find(|r| r["name"] == name)?;
    Some(resource["instances"][0]["attributes"]["id"].as_str()?.to_owned())
}

const MODULE: &str = "resource \"terraform_data\" \"a\" { input = local.size }\n\
    output \"size\" { value = terraform_data.a.output }\n\
    output \"password\" {\n  value = \"hidden\"\n  sensitive = true\n}\n";

#[tokio::test]
async fn a_module_is_applied_changed_and_destroyed() {
    let Some(mut scene) = scene(&["terraform"]).await else { return };
    let files = |size: &str| {
        [("main.tf", MODULE.to_owned()), ("size.tf", format!("locals {{ size = {size} }}"))]
    };
    let apply = async |scene: &Scene, size: &str| {
        let files = files(size);
        let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (*p, t.as_str())).collect();
        scene.apply("db", &files).await
    };
    let seen = apply(&scene, "1").await.unwrap();
    assert_eq!(seen.health, Health::Healthy);
    assert_eq!(seen.outputs, [("size".to_owned(), json!(1))].into(), "sensitive outputs stay");
    let first = id(&state(&scene), "a");
    scene.restart().await;
    let seen = apply(&scene, "2").await.unwrap();
    assert_eq!(seen.outputs["size"], json!(2));
    assert_eq!(id(&state(&scene), "a"), first, "changed in place, from the kept state");
    let seen = scene.check("db").await;
    assert_eq!((seen.health, seen.drift), (Health::Healthy, None));

    let failure = apply(&scene, "local.missing").await.unwrap_err();
    assert_eq!(failure.reason, "TerraformFailed");
    assert!(failure.message.contains("size.tf, line 1"), "{}", failure.message);
    apply(&scene, "3").await.expect("correcting only the input completes it");

    scene.remove("db").await.unwrap();
    assert_eq!(fs::read_dir(scene.path("terraform")).unwrap().count(), 0);
    scene.remove("db").await.unwrap();
}

#[tokio::test]
async fn a_killed_apply_keeps_what_was_made_and_the_next_makes_the_rest() {
    let Some(scene) = scene(&["terraform", "shell"]).await else { return };
    let begun = scene.path("begun");
    let go = scene.path("go");
    let module = format!(
        "resource \"terraform_data\" \"a\" {{}}\nresource \"terraform_data\" \"b\" {{\n  \
         depends_on = [terraform_data.a]\n  provisioner \"local-exec\" {{ command = \"touch {} && \
         while [ ! -e {} ]; do sleep 0.05; done\" }}\n}}\n",
        begun.display(),
        go.display()
    );
    let digest = scene.put(&[("main.tf", &module)]);
    let (key, order) = (key("db"), order(digest, Intent::Present));
    {
        let applying = scene.appliers.apply(&key, &order, &[], CancellationToken::new());
        // Dropping the action kills the process group, as the agent's death does.
        tokio::select! {
            outcome = applying => panic!("{outcome:?}"),
            () = until("the second resource's begin", || begun.exists()) => {}
        }
    }
    let made = id(&state(&scene), "a").expect("what was made before the kill is in the state");
    fs::write(&go, "").unwrap();
    let outcome = scene.appliers.apply(&key, &order, &[], CancellationToken::new()).await;
    assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    let after = state(&scene);
    assert_eq!(id(&after, "a"), Some(made), "it was made again");
    assert!(id(&after, "b").is_some());
}

#[tokio::test]
async fn the_files_of_dependencies_are_part_of_the_root() {
    let Some(scene) = scene(&["terraform"]).await else { return };
    let base = scene.put(&[("size.tf", "locals { size = 7 }")]);
    let seen = scene.apply_on("db", &[("main.tf", MODULE)], &[base]).await.unwrap();
    assert_eq!(seen.outputs["size"], json!(7));
    assert_eq!(scene.appliers.held()[&key("db")].base, [base]);
    let clash = scene.put(&[("main.tf", "# another")]);
    let failure = scene.apply_on("db", &[("main.tf", MODULE)], &[clash]).await.unwrap_err();
    assert!(failure.message.contains("main.tf"), "{}", failure.message);
}

#[tokio::test]
async fn provisioners_need_the_shell_applier() {
    let Some(scene) = scene(&["terraform"]).await else { return };
    let mark = scene.path("mark");
    let module = format!(
        "resource \"terraform_data\" \"a\" {{\n  provisioner \"local-exec\" {{ command = \"touch {}\" }}\n}}",
        mark.display()
    );
    let failure = scene.apply("db", &[("main.tf", &module)]).await.unwrap_err();
    assert!(
        failure.refused && failure.message.contains("provisioner \"local-exec\" in main.tf"),
        "{failure:?}"
    );
    assert!(!mark.exists());
}
