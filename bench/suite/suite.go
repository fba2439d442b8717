package suite

import "thaw/bench/scenario"

// All returns the scenarios, in the order in which they are run.
func All() []scenario.Scenario {
	return []scenario.Scenario{
		faultScenario(),
		underFillScenario(),
		fillScenario(),
		zeroScenario(),
		sessionsScenario(),
		regionsScenario(),
		stormScenario(),
		importScenario(),
	}
}
