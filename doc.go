// Package poolkit is the root of a kit for building Bitcoin mining pools. It holds no code; each room of the house is a
// package of its own, which can be used without the others:
//
//   - difficulty: targets, hashrates, and the policies that decide what a miner is asked for
//   - job: block templates, the jobs made of them, and how jobs reach the servers
//   - share: what miners send, the rulings on it, and where it goes
//   - stratum: the server that miners connect to
//   - block: from a solved share to a block that the network has
//   - sharelog: every share on disk, written and read back
//   - stats: what the shares amount to, for people and programs
//   - switcher: who mines which chain
//
// Rooms never import one another; a main program joins them through the interfaces of package job and package share.
// examples/fullpool is such a program.
package poolkit
