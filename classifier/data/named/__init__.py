"""Data sets known by name: MNIST, CIFAR, SVHN, Flowers 102 and others."""
