//! What each hook does with a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use podwire::abi::ForwardPoint;

use super::super::datapath::*;
use super::super::packets::*;
use super::packet::{Ip, Ipv4, Ipv6, is_discovery};
use super::policy::VerdictEvent;
use super::{
    Drop, Endpoint, FORBIDDEN_ICMP6, INVALID_PACKET, INVALID_SIP, INVALID_SMAC, UNKNOWN_SENDER, UNKNOWN_TARGET,
    UNROUTABLE, UNSUPPORTED_L3, VLAN_FILTERED, Way, World, ensure,
};

type Events = Vec<VerdictEvent>;

impl World {
    pub(super) fn route(
        &mut self,
        program: &str,
        (came_in_by, ifindex): (u32, u32),
        frame: &[u8],
        events: &mut Events,
    ) -> Result<Way, Drop> {
        match program {
            FROM_CONTAINER => self.sent_by_pod(ifindex, frame, events),
            TO_CONTAINER => self.sent_to_pod((came_in_by, ifindex), frame, events),
            FROM_HOST => self.sent_by_host(frame),
            FROM_NETDEV => self.received(frame, events),
            TO_HOST => Ok(Way::Pass(Some(ForwardPoint::ToHost))),
            _ => Ok(Way::Pass(Some(ForwardPoint::ToNetwork))),
        }
    }

    fn sent_by_pod(&mut self, ifindex: u32, frame: &[u8], events: &mut Events) -> Result<Way, Drop> {
        let sender = *self.endpoint_behind(ifindex).ok_or(Drop::new(UNKNOWN_SENDER))?;
        ensure(frame[6..12] == sender.mac, INVALID_SMAC)?;
        match ethertype(frame) {
            0x8100 | 0x88a8 => Err(Drop::new(VLAN_FILTERED)),
            TYPE_IPV4 => {
                let ip = Ipv4::parse(&frame[ETH..]).ok_or(Drop::new(INVALID_PACKET))?;
                ensure(sender.ipv4 == Some(ip.source), INVALID_SIP)?;
                self.let_out(frame, ip.destination.into(), events)
            }
            TYPE_IPV6 => self.ipv6_from_pod(&sender, frame, events),
            TYPE_ARP => self.arp(&sender, frame),
            _ => Err(Drop::new(UNSUPPORTED_L3)),
        }
    }

    fn ipv6_from_pod(&mut self, sender: &Endpoint, frame: &[u8], events: &mut Events) -> Result<Way, Drop> {
        let ip = Ipv6::parse(frame).ok_or(Drop::new(INVALID_PACKET))?;
        if ip.next == ICMPV6 && ip.rest.first().is_some_and(|kind| is_discovery(*kind)) {
            return self.discovery(sender, frame, &ip);
        }
        if ip.destination.is_multicast() {
            ip.headers_are_valid()?;
            let of_the_stack = ip.next == ICMPV6 || ip.next == 0;
            return Err(Drop::new(if of_the_stack { FORBIDDEN_ICMP6 } else { UNKNOWN_TARGET }));
        }
        ensure(sender.ipv6 == Some(ip.source), INVALID_SIP)?;
        self.let_out(frame, ip.destination.into(), events)
    }

    /// A packet whose source is the pod's own.
    fn let_out(&mut self, frame: &[u8], to: IpAddr, events: &mut Events) -> Result<Way, Drop> {
        let ip = Ip::parse(frame).ok_or(Drop::new(UNSUPPORTED_L3))??;
        let packet = ip.tuple(&mut self.fragments, &mut self.trail)?;
        let receiver = self.endpoint_of(to).copied();
        if receiver.is_none() && !self.host_addresses.contains(&to) {
            ensure(!self.in_range(to), UNROUTABLE)?;
            ensure(!is_confined(to), UNKNOWN_TARGET)?;
        }
        self.admit(&packet, frame.len() as u64, events)?;
        let Some(receiver) = receiver else {
            return Ok(Way::Redirect(for_host(frame), Some(ForwardPoint::PodToStack)));
        };
        if ip.hops <= 1 {
            return Ok(Way::Expire(for_host(frame)));
        }
        let packet = readdressed(&one_less(frame), receiver.mac, receiver.node_mac);
        Ok(Way::Redirect(packet, Some(ForwardPoint::PodToPod)))
    }

    /// Connections and policy. What `opens_nothing` passes for a connection's sake alone.
    fn admit_frame(&mut self, frame: &[u8], opens_nothing: bool, events: &mut Events) -> Result<(), Drop> {
        let ip = Ip::parse(frame).ok_or(Drop::new(UNSUPPORTED_L3))??;
        let packet = ip.tuple(&mut self.fragments, &mut self.trail)?;
        ensure(!opens_nothing || self.belongs(&packet), INVALID_SIP)?;
        self.admit(&packet, frame.len() as u64, events)
    }

    fn arp(&self, sender: &Endpoint, frame: &[u8]) -> Result<Way, Drop> {
        let arp = frame.get(ETH..ETH + 28).ok_or(Drop::new(INVALID_PACKET))?;
        ensure(arp[..6] == [0, 1, 8, 0, 6, 4], INVALID_PACKET)?;
        ensure(arp[8..14] == sender.mac, INVALID_SMAC)?;
        let asks_for_us = arp[6..8] == [0, 1] && self.has_ipv4 && arp[24..28] == GATEWAY4.octets();
        ensure(asks_for_us, UNKNOWN_TARGET)?;
        let address = Ipv4Addr::from([arp[14], arp[15], arp[16], arp[17]]);
        ensure(sender.ipv4 == Some(address), INVALID_SIP)?;
        let reply = Arp { operation: 2, sender: (sender.node_mac, GATEWAY4), target: (sender.mac, address) };
        let mut packet = reply.frame(sender.node_mac, sender.mac);
        packet.extend_from_slice(&frame[ETH + 28..]);
        Ok(Way::Redirect(packet, None))
    }

    fn discovery(&self, sender: &Endpoint, frame: &[u8], ip: &Ipv6<'_>) -> Result<Way, Drop> {
        ensure(ip.rest[0] == 135, FORBIDDEN_ICMP6)?;
        let message = frame.get(ETH + IPV6..ETH + IPV6 + 24).ok_or(Drop::new(INVALID_PACKET))?;
        ensure(ip.hops == 255 && message[1] == 0 && ip.payload.len() >= 24, INVALID_PACKET)?;
        ensure(self.has_ipv6 && message[8..24] == GATEWAY6.octets(), UNKNOWN_TARGET)?;
        ensure(sender.ipv6 == Some(ip.source) || is_link_local(ip.source), INVALID_SIP)?;
        let answer = ndp(136, 0xe0, GATEWAY6, &link_layer_option(2, sender.node_mac));
        Ok(Way::Redirect(icmpv6((sender.node_mac, sender.mac), (GATEWAY6, ip.source), 255, &answer), None))
    }

    fn sent_to_pod(
        &mut self,
        (came_in_by, ifindex): (u32, u32),
        frame: &[u8],
        events: &mut Events,
    ) -> Result<Way, Drop> {
        let receiver = *self.endpoint_behind(ifindex).ok_or(Drop::new(UNROUTABLE))?;
        let passes = Ok(Way::Pass(Some(ForwardPoint::StackToPod)));
        let from: IpAddr = match ethertype(frame) {
            0x8100 | 0x88a8 => return Err(Drop::new(VLAN_FILTERED)),
            TYPE_IPV4 => {
                let ip = Ipv4::parse(&frame[ETH..]).ok_or(Drop::new(INVALID_PACKET))?;
                ensure(receiver.ipv4 == Some(ip.destination), UNROUTABLE)?;
                ip.source.into()
            }
            TYPE_IPV6 => {
                let ip = Ipv6::parse(frame).ok_or(Drop::new(INVALID_PACKET))?;
                if ip.destination.is_multicast() || is_link_local(ip.destination) {
                    return passes;
                }
                ensure(receiver.ipv6 == Some(ip.destination), UNROUTABLE)?;
                ip.source.into()
            }
            TYPE_ARP => return passes,
            _ => return Err(Drop::new(UNSUPPORTED_L3)),
        };
        // Who comes in by a device of the host's is nobody who is here.
        let is_foreign = ![0, HOST_DEVICE].contains(&came_in_by);
        let is_host = self.host_addresses.contains(&from);
        let of_pods = self.endpoint_of(from).is_some() || self.in_range(from);
        ensure(!is_foreign || is_host || !of_pods, INVALID_SIP)?;
        self.admit_frame(frame, is_foreign && is_host && from.is_ipv6(), events)?;
        passes
    }

    fn sent_by_host(&self, frame: &[u8]) -> Result<Way, Drop> {
        let to = match ethertype(frame) {
            TYPE_IPV4 => Ipv4::parse(&frame[ETH..]).map(|ip| IpAddr::from(ip.destination)),
            TYPE_IPV6 => Ipv6::parse(frame).map(|ip| ip.destination.into()),
            _ => return Ok(Way::Pass(None)),
        };
        let to = to.ok_or(Drop::new(INVALID_PACKET))?;
        match self.endpoint_of(to) {
            Some(receiver) => {
                let packet = readdressed(frame, receiver.mac, receiver.node_mac);
                Ok(Way::Redirect(packet, Some(ForwardPoint::HostToPod)))
            }
            None if self.in_range(to) => Err(Drop::new(UNROUTABLE)),
            None => Ok(Way::Pass(None)),
        }
    }

    fn received(&mut self, frame: &[u8], events: &mut Events) -> Result<Way, Drop> {
        let stack = Ok(Way::Pass(Some(ForwardPoint::FromNetwork)));
        if frame[..6] != DEVICE_MAC {
            return stack;
        }
        let ends = match ethertype(frame) {
            TYPE_IPV4 => {
                Ipv4::parse(&frame[ETH..]).map(|ip| (IpAddr::from(ip.source), IpAddr::from(ip.destination), ip.ttl))
            }
            TYPE_IPV6 => Ipv6::parse(frame).map(|ip| (ip.source.into(), ip.destination.into(), ip.hops)),
            _ => None,
        };
        let Some((from, to, hops)) = ends else { return stack };
        ensure(!self.in_range(from), INVALID_SIP)?;
        let Some(receiver) = self.endpoint_of(to).copied().filter(|_| hops > 1) else { return stack };
        // Nobody outside has an address of this node.
        let ours = self.host_addresses.contains(&from) || self.endpoint_of(from).is_some();
        ensure(!ours, INVALID_SIP)?;
        self.admit_frame(frame, false, events)?;
        let packet = readdressed(&one_less(frame), receiver.mac, receiver.node_mac);
        Ok(Way::Redirect(packet, Some(ForwardPoint::NetworkToPod)))
    }
}

fn ethertype(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[12], frame[13]])
}

fn for_host(frame: &[u8]) -> Vec<u8> {
    with(frame, 0, &HOST_MAC)
}

fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

/// No address of one host elsewhere.
fn is_confined(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(to) => to.is_multicast() || to.is_broadcast() || to.is_loopback() || to.octets()[0] == 0,
        IpAddr::V6(to) => is_link_local(to) || to.is_loopback() || to.is_unspecified(),
    }
}

/// The frame with one hop less to go. The IPv4 checksum, which may have been wrong, moves by as much as the header did
/// (RFC 1141).
fn one_less(frame: &[u8]) -> Vec<u8> {
    if ethertype(frame) == TYPE_IPV6 {
        return with(frame, ETH + 7, &[frame[ETH + 7] - 1]);
    }
    let checksum = u32::from(u16::from_be_bytes([frame[ETH + 10], frame[ETH + 11]])) + 0x0100;
    let checksum = (checksum + u32::from(checksum >= 0xffff)) as u16;
    with(&with(frame, ETH + 8, &[frame[ETH + 8] - 1]), ETH + 10, &checksum.to_be_bytes())
}
