// Package switcher decides which chain each user mines.
//
// A [Directory] knows what users have chosen; [Memory] is the one that lives in the process. Package switchertest
// checks any other.
package switcher
