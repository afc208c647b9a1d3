"""The library: trained models and test images as Python objects, from any folder.

`import vlae` offers the names of this room. `project` finds recorded results, `pretrained` loads a
model, `images` reads test images and checks what a caller passes in.
"""
