// Package pageset keeps sets of page numbers that only grow, without a lock.
package pageset
