// A short word at the top of the page that something is done.
import { ElMessage } from "element-plus";
import "element-plus/theme-chalk/el-message.css";

export function say(message: string): void {
  ElMessage({ message, type: "success", duration: 4_000, grouping: true });
}

/** Says that something was not done; false, for who asks whether it was. */
export function warn(message: string): false {
  ElMessage({ message, type: "error", duration: 10_000, grouping: true, showClose: true });
  return false;
}
