package cpu

import "strings"

// invisible are the words in the kernel's list that a program cannot fail for the want of: what the kernel uses alone, what it says of
// itself and of the machine, and what only makes instructions faster that every CPU has (erms, 3dnowprefetch). Words that are not in
// the list are features, since a new instruction set must not be overlooked.
var invisible = New(strings.Fields(`
	3dnowprefetch acc_power acpi amd_lbr_pmc_freeze amd_lbr_v2 amd_ppin aperfmperf apic arat arch_capabilities arch_lbr arch_perfmon art
	auto_ibrs avic bts bus_lock_detect cat_l2 cat_l3 cdp_l2 cdp_l3 cmp_legacy constant_tsc cpb cpuid cpuid_fault cppc cqm
	cqm_llc cqm_mbm_local cqm_mbm_total cqm_occup_llc cr8_legacy dca de debug_swap decodeassists dtherm dtes64 ds_cpl dts epb ept
	ept_ad erms est extapic extd_apicid flexpriority flush_l1d flushbyasid fsrc fsrm fsrs fxsr_opt fzrm hfi ht hwp hwp_act_window hwp_epp hwp_notify
	hwp_pkg_req hw_pstate hypervisor ibpb ibpb_exit_to_user ibrs ibrs_enhanced ibs ida intel_ppin intel_pt invpcid invpcid_single
	irperf la57 lbrv mba mca mce md_clear misalignsse mon msr mtrr nodeid_msr nonstop_tsc nopl npt nrip_save nx
	osvw overflow_recov pae pat pausefilter pbe pcid pconfig pdcm pebs perfctr_core perfctr_llc perfctr_nb perfmon_v2 pfthreshold pge
	pln proc_feedback pse pse36 pti pts rapl rdt_a rdt_m rep_good ring3mwait rrsba_ctrl sdbg sep sev sev_es sev_snp skinit
	sme smap smca smep smx split_lock_detect ss ssbd stibp stibp_always_on succor svm svm_lock tce tm tm2 topoext tpr_shadow
	tsc_adjust tsc_deadline_timer tsc_known_freq tsc_reliable tsc_scale umip v_spec_ctrl v_vmsave_vmload vgif vme
	vmcb_clean vmmcall vmx vnmi vpid wbnoinvd wdt x2apic x2avic xsaveerptr xsaves xtopology xtpr
`)...)

// Visible returns the features of the kernel's list that programs may act on.
func Visible(flags Set) Set { return flags.Minus(invisible) }
