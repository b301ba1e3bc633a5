"""The hospital beside the agent: a simulated feed, real files, a device that sends and a system that receives.

Secret: none of the agent's. Promise: it shares the protocol with the agent and nothing else, so that what it measures
is the agent and not itself.
"""
