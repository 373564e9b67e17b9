using Headroom.Core;

namespace Headroom.Cli;

/// <summary>A command was told to stop, and did.</summary>
/// <param name="todo">How to have it all the same, and what was left.</param>
internal sealed class StoppedException(string todo) : HeadroomException("Stopped.", todo, 1);
