"""A hub of the Hugging Face kind on this machine, with small generated checkpoints under the real repository ids.

A simulation, as every README in it says: the protocol is the hub's, the weights are seeded noise. It stands in
for huggingface.co where there is no internet, so that the seed Jobs run unchanged: they and huggingface_hub find it by
HF_ENDPOINT.
"""
