//! `muster get`: the server's own tables, or the objects themselves.

use std::io::Write;

use anyhow::{Context as _, Result, bail};
use futures::{AsyncBufReadExt as _, StreamExt as _};
use serde_json::{Value, json};

use super::{
    cluster::{Cluster, TABLE},
    kinds::Kind,
    table::Printer,
};
use crate::args::{ClientArgs, GetArgs, OutputArg};

/// Objects in one answer; more are asked for page by page.
const PAGE: usize = 500;

/// Prints what the command line asks for.
pub(crate) async fn run(args: &GetArgs, client: &ClientArgs) -> Result<()> {
    let cluster = Cluster::connect(client, args.namespace.as_deref()).await?;
    let (kinds, names) = targets(&cluster, args)?;
    if args.watch {
        let [kind] = &kinds[..] else { bail!("-w watches one kind at a time") };
        return watch(&cluster, args, kind, &names).await;
    }
    match args.output {
        Some(OutputArg::Yaml | OutputArg::Json | OutputArg::Name) => {
            print_objects(&cluster, args, &kinds, &names).await
        }
        None | Some(OutputArg::Wide) => print_tables(&cluster, args, &kinds, &names).await,
    }
}

/// Prints all objects of a kind as the server's table; `empty` where there are none.
pub(crate) async fn table(client: &ClientArgs, kind: &str, empty: &str) -> Result<()> {
    let cluster = Cluster::connect(client, None).await?;
    let table = cluster.get_table(&cluster.kind(kind)?.path(None)).await?;
    if table["rows"].as_array().is_none_or(Vec::is_empty) {
        eprintln!("{empty}");
        return Ok(());
    }
    print(Printer::new(false, false).render(&table, &table["columnDefinitions"]).as_bytes())
}

/// The kinds and names that `KIND NAME…`, `KIND,KIND`, `KIND/NAME` or a category mean.
fn targets(cluster: &Cluster, args: &GetArgs) -> Result<(Vec<Kind>, Vec<String>)> {
    let mut names: Vec<_> = args.name.iter().cloned().collect();
    let mut kinds = Vec::new();
    for word in args.kind.split(',') {
        let (word, name) = match word.split_once('/') {
            Some((word, name)) => (word, Some(name.to_owned())),
            None => (word, None),
        };
        names.extend(name);
        match cluster.find(word) {
            Some(kind) => kinds.push(kind.clone()),
            None => match cluster.category(word) {
                none if none.is_empty() => kinds.push(cluster.kind(word)?),
                some => kinds.extend(some),
            },
        }
    }
    if !names.is_empty() {
        if kinds.len() > 1 {
            bail!("name objects of one kind at a time");
        }
        if args.selector.is_some() {
            bail!("-l selects among all objects: leave out the names, or the selector");
        }
        if args.all_namespaces {
            bail!("a name needs a namespace: use -n instead of -A");
        }
    }
    Ok((kinds, names))
}

async fn print_tables(
    cluster: &Cluster,
    args: &GetArgs,
    kinds: &[Kind],
    names: &[String],
) -> Result<()> {
    let mut shown = false;
    for kind in kinds {
        let pages = pages(cluster, args, kind, names, true).await?;
        let rows = |page: &Value| page["rows"].as_array().map_or(0, Vec::len);
        if pages.iter().map(rows).sum::<usize>() == 0 {
            continue;
        }
        let namespaced = args.all_namespaces && kind.namespaced;
        let mut printer = Printer::new(args.output == Some(OutputArg::Wide), namespaced);
        if kinds.len() > 1 {
            printer = printer.with_kind(kind.object("").trim_end_matches('/').to_owned());
            if shown {
                print(b"\n")?;
            }
        }
        let mut all = pages[0].clone();
        let rows = pages.iter().flat_map(|page| page["rows"].as_array().cloned());
        all["rows"] = rows.flatten().collect();
        print(printer.render(&all, &all["columnDefinitions"]).as_bytes())?;
        shown = true;
    }
    if !shown {
        match kinds {
            [kind] if kind.namespaced && !args.all_namespaces => {
                eprintln!("No resources found in {} namespace.", cluster.namespace);
            }
            _ => eprintln!("No resources found"),
        }
    }
    Ok(())
}

async fn print_objects(
    cluster: &Cluster,
    args: &GetArgs,
    kinds: &[Kind],
    names: &[String],
) -> Result<()> {
    let mut objects = Vec::new();
    for kind in kinds {
        for mut page in pages(cluster, args, kind, names, false).await? {
            match page.get_mut("items").map(Value::take) {
                Some(Value::Array(items)) => {
                    objects.extend(items.into_iter().map(|item| with_kind(item, kind)));
                }
                _ => objects.push(page),
            }
        }
    }
    if args.output == Some(OutputArg::Name) {
        for object in &objects {
            let kind = cluster.kind_of(object).context("the server sent an unknown kind")?;
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            print(format!("{}\n", kind.object(name)).as_bytes())?;
        }
        return Ok(());
    }
    let value = match &mut objects[..] {
        [one] if names.len() == 1 => one.take(),
        _ => json!({"apiVersion": "v1", "items": objects, "kind": "List",
                    "metadata": {"resourceVersion": ""}}),
    };
    print(rendered(args, value)?.as_bytes())
}

/// As kubectl prints objects: without the record of field managers.
fn rendered(args: &GetArgs, mut object: Value) -> Result<String> {
    let items = object.get_mut("items").and_then(Value::as_array_mut);
    match items {
        Some(items) => items.iter_mut().for_each(drop_managed_fields),
        None => drop_managed_fields(&mut object),
    }
    Ok(match args.output {
        Some(OutputArg::Json) => format!("{}\n", serde_json::to_string_pretty(&object)?),
        _ => muster_core::yaml::to_yaml(&object),
    })
}

fn drop_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// Items of a list do not name their kind.
fn with_kind(mut item: Value, kind: &Kind) -> Value {
    if let Some(fields) = item.as_object_mut() {
        fields.entry("apiVersion").or_insert_with(|| kind.api_version().into());
        fields.entry("kind").or_insert_with(|| kind.kind.clone().into());
    }
    item
}

/// One answer for each name, or the pages of the list.
async fn pages(
    cluster: &Cluster,
    args: &GetArgs,
    kind: &Kind,
    names: &[String],
    table: bool,
) -> Result<Vec<Value>> {
    let mut pages = Vec::new();
    for name in names {
        let path = kind.object_path(&cluster.namespace, name);
        pages.push(read(cluster, &path, table).await?);
    }
    if !names.is_empty() {
        return Ok(pages);
    }
    let mut next = String::new();
    loop {
        let path = format!("{}&limit={PAGE}{next}", list_path(cluster, args, kind));
        let page = read(cluster, &path, table).await?;
        let token = page.pointer("/metadata/continue").and_then(Value::as_str).unwrap_or_default();
        next = format!("&continue={}", escaped(token));
        let last = token.is_empty();
        pages.push(page);
        if last {
            return Ok(pages);
        }
    }
}

async fn read(cluster: &Cluster, path: &str, table: bool) -> Result<Value> {
    if table { cluster.get_table(path).await } else { cluster.get(path).await }
}

/// The path of the list that the command line means; ends so that `&` can follow.
fn list_path(cluster: &Cluster, args: &GetArgs, kind: &Kind) -> String {
    let namespace = (!args.all_namespaces).then_some(cluster.namespace.as_str());
    let selector = escaped(args.selector.as_deref().unwrap_or_default());
    format!("{}?labelSelector={selector}", kind.path(namespace))
}

/// Prints the objects, then every change, until the stream or the user ends it.
async fn watch(cluster: &Cluster, args: &GetArgs, kind: &Kind, names: &[String]) -> Result<()> {
    let mut list = list_path(cluster, args, kind);
    match names {
        [] => {}
        [name] => list += &format!("&fieldSelector=metadata.name%3D{}", escaped(name)),
        _ => bail!("-w watches one object, or all of a kind"),
    }
    let as_table = matches!(args.output, None | Some(OutputArg::Wide));
    let namespaced = args.all_namespaces && kind.namespaced;
    let mut printer = Printer::new(args.output == Some(OutputArg::Wide), namespaced);
    let first = read(cluster, &list, as_table).await?;
    if as_table {
        print(printer.render(&first, &first["columnDefinitions"]).as_bytes())?;
    } else {
        for item in first["items"].as_array().into_iter().flatten() {
            let text = rendered(args, with_kind(item.clone(), kind))?;
            print(format!("---\n{text}").as_bytes())?;
        }
    }
    let version = first["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    let path = format!("{list}&watch=1&resourceVersion={version}");
    let accept = if as_table { TABLE } else { "application/json" };
    let mut lines = cluster.stream(&path, accept).await?.lines();
    while let Some(line) = lines.next().await {
        let event: Value = serde_json::from_str(&line.context("the watch broke off")?)
            .context("the watch sent no JSON")?;
        let object = &event["object"];
        match event["type"].as_str() {
            Some("ERROR") => bail!("{}", object["message"].as_str().unwrap_or("the watch ended")),
            Some("BOOKMARK") => {}
            _ if as_table => {
                print(printer.render(object, &first["columnDefinitions"]).as_bytes())?;
            }
            _ => print(format!("---\n{}", rendered(args, object.clone())?).as_bytes())?,
        }
    }
    Ok(())
}

/// A query value, percent-encoded (RFC 3986).
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Writes to stdout at once; a closed pipe is the reader's way to say that it has enough.
pub(super) fn print(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}
