//! A controller of one's own in a page: opens a datapath, wires two network namespaces, pings between them, leaves no trace.
//!
//! Run as root: `cargo run --example embed`. Everything happens in a network namespace of its own, with its own pins.

use std::path::PathBuf;
use std::process::Command;

use podwire::endpoint::EndpointSpec;
use podwire::netns::NetNs;
use podwire::{Datapath, Devices, Labels, NodeConfig};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Result<()> {
    let run = PathBuf::from(format!("/run/podwire-embed-{}", std::process::id()));
    std::fs::create_dir_all(run.join("bpf"))?;
    // The node is a namespace, too: a datapath belongs to the namespace of the thread that opens it.
    NetNs::create()?.run(|| control(&run))??;
    std::fs::remove_dir_all(&run)?;
    Ok(())
}

fn control(run: &std::path::Path) -> Result<()> {
    let node = NodeConfig::new("embedded")
        .ipv4("10.11.0.0/24".parse()?)
        .ipv6("fd00:11::/120".parse()?)
        .devices(Devices::Named(vec![]));
    let (bpf_root, state_dir) = (run.join("bpf"), run.join("state"));
    let datapath = Datapath::builder().bpf_root(&bpf_root).state_dir(&state_dir).open(node)?;

    let mut pods = Vec::new();
    for name in ["client", "server"] {
        let path = run.join(name);
        NetNs::create_named(&path)?;
        let spec =
            EndpointSpec::new(format!("demo/{name}")).netns(&path).labels(Labels::parse([format!("app={name}")])?);
        let endpoint = datapath.endpoints().create(spec)?; // live when it returns
        println!("endpoint {} ({}) is live after {:?}", endpoint.id(), endpoint.record.name, endpoint.timings.total());
        pods.push((path, endpoint));
    }
    datapath.mark_synced()?;

    let (client, server) = (&pods[0], &pods[1].1);
    for address in server.record.addresses() {
        NetNs::open(&client.0)?.run(|| ping(&address.to_string()))??;
    }
    for counter in datapath.forwards().counters()? {
        println!("{} {}: {} packets", counter.counted.reason, counter.counted.direction, counter.packets);
    }

    for (path, endpoint) in pods {
        datapath.endpoints().delete(endpoint.id())?;
        NetNs::remove(&path)?;
    }
    drop(datapath);
    Datapath::cleanup(&bpf_root, &state_dir)?;
    Ok(())
}

fn ping(address: &str) -> Result<()> {
    let status = Command::new("ping").args(["-c", "3", "-i", "0.2", "-W", "1", address]).status()?;
    if status.success() { Ok(()) } else { Err(format!("{address} did not answer").into()) }
}
