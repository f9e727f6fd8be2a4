package main

import (
	"fmt"
	"os"
)

// needPorts makes sure that n connections find a local port: one address has only so many to one destination.
func needPorts(n, sources int) error {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	var lo, hi int
	if err != nil {
		return nil // then the connections will tell
	}
	if k, _ := fmt.Sscan(string(b), &lo, &hi); k != 2 || hi < lo {
		return nil
	}
	if ports := (hi - lo + 1) * sources; n > ports {
		return fmt.Errorf("%d connections need as many local ports and %d addresses have %d: "+
			"name more with -source, such as 127.0.0.2,127.0.0.3", n, sources, ports)
	}
	return nil
}
